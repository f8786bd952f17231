"""How long a trillion tokens take to open, and how long the first sample of any step.

The shards are sparse files: they have their full length and hold nothing. Every start is a fresh
process; the time of importing the libraries is not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, save, table

from maskwright.core.fingerprint import sha256_bytes
from maskwright.core.inventory import FileEntry
from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from maskwright.tokens.shards import open_split, write_array
from maskwright.tokens.stream import SampleStream

VOCAB, LENGTH, DOCUMENT = 50_265, 512, 1000
# Samples consumed before the first one that is asked for.
STEPS = (0, 10**3, 10**9, 10**12)


def _entry(folder: Path, path: str, num_bytes: int) -> FileEntry:
    with (folder / path).open("wb") as file:
        file.truncate(num_bytes)
    return FileEntry(path=path, num_bytes=num_bytes, sha256=sha256_bytes(path.encode()))


def _publish(folder: Path, num_shards: int, tokens_each: int, num_sources: int) -> None:
    (folder / "train").mkdir()
    shards = []
    for number in range(num_shards):
        name, documents = f"train/shard-{number:05d}", tokens_each // DOCUMENT
        shard = Shard(
            num_tokens=tokens_each,
            num_documents=documents,
            source=f"source-{number * num_sources // num_shards}",
            tokens=_entry(folder, f"{name}.tokens", 2 * tokens_each),
            documents=_entry(folder, f"{name}.documents", 8 * documents),
        )
        shards.append(shard)
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint="synthetic", vocab_size=VOCAB),
        dtype="uint16",
        splits={"train": Split(shards=tuple(shards), num_text_bytes=4 * num_shards * tokens_each)},
        repeats={f"source-{number}": 1 + number % 3 for number in range(num_sources)},
        token_counts=write_array(folder, "token_counts.bin", np.zeros(VOCAB, np.int64)),
        provenance={},
    )
    save_manifest(folder, manifest)


def _start(folder: Path, consumed: int) -> dict[str, float]:
    """What a fresh process does: open, and make one sample."""
    started = time.perf_counter()
    data = open_split(folder, "train")
    opened = time.perf_counter()
    SampleStream(data, LENGTH, 0, 2, 0).batch(consumed, 1)
    return {"open": opened - started, "first": time.perf_counter() - opened, "tokens": data.num_tokens}


def _measure(folder: Path, consumed: int, times: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--consumed", str(consumed)]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(times)
    ]
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    least = {f"least_{name}": min(one[name] for one in found) for name in ("open", "first")}
    return {"consumed": consumed, **middle, **least}


def main() -> None:
    """Measure one source and many, at several steps."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--shards", type=int, default=10_000)
    arguments.add_argument("--tokens-each", type=int, default=100_000_000)
    arguments.add_argument("--times", type=int, default=5)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--consumed", type=int)
    options = arguments.parse_args()
    if options.folder:  # one start, asked for by _measure
        print(json.dumps(_start(options.folder, options.consumed)))
        return
    cases = []
    for num_sources in (1, 20):
        with tempfile.TemporaryDirectory() as name:
            _publish(Path(name), options.shards, options.tokens_each, num_sources)
            size = (Path(name) / "manifest.json").stat().st_size
            for consumed in STEPS:
                found = _measure(Path(name), consumed, options.times)
                cases.append({"sources": num_sources, "manifest_bytes": size, **found})
    rows = [
        [
            f"{case['sources']}",
            f"{case['tokens']:.0e}",
            f"{case['manifest_bytes'] / 1e6:.1f}",
            f"{case['consumed']:.0e}" if case["consumed"] else "0",
            f"{case['open']:.3f} ({case['least_open']:.3f})",
            f"{case['first']:.3f} ({case['least_first']:.3f})",
        ]
        for case in cases
    ]
    header = [
        "sources",
        "tokens",
        "manifest, MB",
        "samples consumed",
        "open, median s (least)",
        "first sample, median s (least)",
    ]

    save(options.name or "manifest", {"shards": options.shards, "cases": cases}, table(header, rows))


if __name__ == "__main__":
    main()
