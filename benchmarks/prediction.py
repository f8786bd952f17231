"""What the planner says about the setups of `bench_scale.py`, made before they run."""

from __future__ import annotations

import argparse
from typing import Any

from maskwright.model.config import MODEL_SIZES
from maskwright.planner import Batch, Mesh, Shape, rank_memory

__all__ = ["predicted_rank_bytes"]


# What a process has before there is a model: the peak of one with a tiny model.
LIBRARIES = 0.37e9


def predicted_rank_bytes(options: argparse.Namespace, setup: dict[str, Any]) -> float:
    """Bytes that the planner gives a rank, libraries included.

    Args:
        options: of the benchmark.
        setup: processes, engine and ranks that share layers.
    """
    tensor = setup.get("tensor", 1)
    data = 1 if setup["engine"] == "single" else setup["processes"] // tensor
    count = options.micro_batches * (2 if tensor > 1 or setup["processes"] == 1 else 1)
    batch = Batch(options.micro * count * data, options.micro, options.length, precision=options.precision)
    shape = Shape(
        **MODEL_SIZES[options.size],
        vocab_size=options.vocab,
        max_position_embeddings=options.length + 2,
    )
    return rank_memory(shape, Mesh(setup["engine"], data, tensor), batch, "cpu").total + LIBRARIES
