"""What reading and masking a batch costs, as a share of the training step it feeds."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, save, table

from maskwright.model.config import MODEL_SIZES, EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream, masked_lm_loss
from maskwright.objectives.step_sizes import StepSizes
from maskwright.parallel.single import SingleEngine
from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry
from maskwright.tokens.shards import TokenData, write_array
from maskwright.tokens.stream import SampleStream
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

CASES = (("small", 8_192, 32, 128), ("base", 50_265, 8, 512))
SPECIAL = (0, 1, 2, 3)


def _data(folder: Path, vocab: int, num_tokens: int) -> TokenData:
    tokens = np.random.default_rng(0).integers(5, vocab - 1, num_tokens).astype(np.uint16)
    shard = Shard(
        num_tokens=num_tokens,
        num_documents=1,
        tokens=write_array(folder, "train/shard-00000.tokens", tokens),
        documents=write_array(folder, "train/shard-00000.documents", np.array([num_tokens], np.uint64)),
    )
    counts = write_array(folder, "token_counts.bin", np.bincount(tokens, minlength=vocab))
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint="synthetic", vocab_size=vocab),
        dtype="uint16",
        splits={"train": Split(shards=(shard,), num_text_bytes=num_tokens)},
        token_counts=counts,
        provenance={},
    )
    return TokenData(folder, manifest, "train")


def _median(action: Any, times: int) -> float:
    action()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _case(folder: Path, size: str, vocab: int, batch: int, length: int) -> dict[str, Any]:
    samples = SampleStream(_data(folder, vocab, 20_000_000), length, 0, 2, seed=0)
    masker = Masker(MaskingConfig(), 0, vocab, vocab - 1, (*SPECIAL, vocab - 1))
    stream = MaskedLMStream(samples, masker, StepSizes(samples, lambda consumed: batch, batch))
    load = _median(stream.next_step, 50)
    config = EncoderConfig(vocab_size=vocab, max_position_embeddings=length + 2, **MODEL_SIZES[size])
    model = MaskedLM(config)
    initialize(model, 0, config.initializer_range)
    engine = SingleEngine(model, optimizer_factory(OptimizerConfig()), "cpu", "bf16", 1.0)
    (micro,) = stream.next_step()

    def step() -> None:
        engine.forward_backward(masked_lm_loss, micro, micro.targets)
        engine.step(1e-4)

    seconds = _median(step, 3)
    return {"size": size, "batch": batch, "length": length, "load_seconds": load, "step_seconds": seconds}


def main() -> None:
    """Measure both shapes."""
    options = parser(__doc__.splitlines()[0]).parse_args()
    found = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found.append(_case(Path(folder), *case))
    rows = [
        [
            f"{one['size']} {one['batch']} x {one['length']}",
            f"{1e3 * one['load_seconds']:.2f}",
            f"{1e3 * one['step_seconds']:.0f}",
            f"{one['load_seconds'] / (one['load_seconds'] + one['step_seconds']):.2%}",
        ]
        for one in found
    ]
    text = table(["step", "read and mask, ms", "compute, ms", "share of the step"], rows)
    save(options.name or "loader", {"cases": found}, text)


if __name__ == "__main__":
    main()
