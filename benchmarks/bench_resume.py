"""Time to the first batch after a resume, at step 1,000 and at step 1,000,000,000.

Data and the index of samples are there. What is timed is opening the split, going to the place and making the
first step's batches, as a process does that begins; checksums are not compared. Replaying the first thousand
steps is what a loader pays that reaches its place by reading.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, save, table

from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream
from maskwright.objectives.step_sizes import StepSizes
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from maskwright.tokens.shard_writing import EncodedDocuments, write_array, write_shard
from maskwright.tokens.shards import TokenData, load_manifest
from maskwright.tokens.stream import SampleStream

VOCAB, EOS, LENGTH, SEQUENCES = 50_265, 2, 512, 32
STEPS = (10**3, 10**9)
FORMATS = ("windows", "full-sentences", "segment-pair")
REPEATS = 9


def _shard(folder: Path, number: int, source: str, num_documents: int) -> Shard:
    chance = np.random.default_rng(number)
    lengths = chance.integers(5, 45, (num_documents, 20))
    documents = EncodedDocuments(
        chance.integers(5, VOCAB - 1, lengths.sum()).astype(np.uint16),
        lengths.sum(axis=1),
        np.cumsum(lengths.ravel()),
    )
    return write_shard(
        folder, "train", number, [documents], vocab_size=VOCAB, eos_id=EOS, source=source, sentences=True
    ).shard


def _write(folder: Path, num_documents: int) -> None:
    """Two sources in eight shards; the smaller one comes three times an epoch."""
    shards = [_shard(folder, n, "web" if n < 6 else "wiki", num_documents // 8) for n in range(8)]
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint="synthetic", vocab_size=VOCAB),
        dtype="uint16",
        splits={"train": Split(shards=tuple(shards), num_text_bytes=1)},
        repeats={"wiki": 3.0},
        token_counts=write_array(folder, "token_counts.bin", np.zeros(VOCAB, np.int64)),
        provenance={},
    )
    save_manifest(folder, manifest)


def _stream(folder: Path, name: str) -> MaskedLMStream:
    data = TokenData(folder, load_manifest(folder), "train")
    samples = SampleStream(data, LENGTH, 0, EOS, 1, format=FormatConfig(name=name))
    masker = Masker(MaskingConfig(), 1, VOCAB, VOCAB - 1, (0, 1, 2, 3, VOCAB - 1))
    return MaskedLMStream(samples, masker, StepSizes(samples, lambda consumed: SEQUENCES, SEQUENCES))


def _resume(folder: Path, name: str, step: int) -> float:
    """Median seconds from nothing to the first batch of a step."""
    found = []
    for repeat in range(REPEATS):
        began = time.perf_counter()
        stream = _stream(folder, name)
        stream.restore({**stream.state(), "consumed": (step + repeat) * SEQUENCES})
        stream.next_step()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def _replay(folder: Path, name: str, steps: int) -> float:
    stream = _stream(folder, name)
    began = time.perf_counter()
    for _ in range(steps):
        stream.next_step()
    return time.perf_counter() - began


def _case(folder: Path, name: str) -> dict[str, Any]:
    _stream(folder, name).next_step()  # the index of samples is made once
    near, far = (_resume(folder, name, step) for step in STEPS)
    return {
        "format": name,
        "near_seconds": near,
        "far_seconds": far,
        "replay_seconds": _replay(folder, name, STEPS[0]),
    }


def main() -> None:
    """Measure every format."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--documents", type=int, default=80_000, help="documents of some 500 tokens")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), arguments.documents)
        found = [_case(Path(folder), name) for name in FORMATS]
    rows = [
        [
            one["format"],
            f"{1e3 * one['near_seconds']:.1f}",
            f"{1e3 * one['far_seconds']:.1f}",
            f"{one['far_seconds'] / one['near_seconds']:.2f}",
            f"{1e3 * one['replay_seconds']:.0f}",
        ]
        for one in found
    ]
    header = ["format", "to step 1e3, ms", "to step 1e9, ms", "ratio", "replaying 1e3 steps, ms"]
    save(arguments.name or "resume", {"documents": arguments.documents, "cases": found}, table(header, rows))


if __name__ == "__main__":
    main()
