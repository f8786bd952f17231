"""What a rank sends in a step, collective by collective.

Counted as a ring sends it: of S bytes over n ranks an all-gather and a reduce-scatter send S (n - 1) / n
from each rank, an all-reduce twice that. Left out are the few numbers that ranks tell each other about
each step (losses, norms), and what rounding to whole rows adds.

Legend: P parameters on a rank's part of the layers, N tokens of a micro-batch, D hidden, M predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .setup import Batch, Mesh, Shape

__all__ = ["Traffic", "step_traffic"]

_BUCKET_BYTES = 64 << 20


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in a step.

    Args:
        purpose: what is sent.
        collective: `all-reduce`, `all-gather` or `reduce-scatter`.
        phase: with what it overlaps: `forward`, `backward`, `last backward`, or nothing (`blocking`).
        size: ranks of the group.
        stride: distance between neighbours of the group, in ranks.
        payload_bytes: sizes of the whole tensors, in all.
        messages: collectives in all.
    """

    purpose: str
    collective: str
    phase: str
    size: int
    stride: int
    payload_bytes: float
    messages: float

    @property
    def sent_bytes(self) -> float:
        """Bytes that a rank sends."""
        twice = 2 if self.collective == "all-reduce" else 1
        return twice * self.payload_bytes * (self.size - 1) / self.size


def step_traffic(shape: Shape, mesh: Mesh, batch: Batch) -> list[Traffic]:
    """What each rank sends in a step.

    Args:
        shape: of the model.
        mesh: of the ranks.
        batch: of the step.

    Returns:
        One entry for each kind of message; empty for one process.

    Source: Li et al. 2020 (arXiv 2006.15704) for ddp; Rajbhandari et al. 2020 (arXiv 1910.02054), section
    7, for ZeRO and full sharding; Korthikanti et al. 2022 (arXiv 2205.05198), section 4.2, for tensor
    parallel. ZeRO's volumes are those of the paper, not counted on its library.
    """
    if mesh.engine == "ddp":
        found = [_whole_gradients(shape, mesh, batch)]
    elif mesh.engine == "fsdp2":
        found = [*_sharded(shape, mesh, batch), *_shared_layers(shape, mesh, batch)]
    elif mesh.engine == "deepspeed":
        found = list(_zero(shape, mesh, batch))
    else:
        found = []
    return [one for one in found if one.size > 1]


def _whole_gradients(shape: Shape, mesh: Mesh, batch: Batch) -> Traffic:
    payload = shape.num_parameters * batch.reduce_bytes
    messages = -(-payload // _BUCKET_BYTES)
    return Traffic("gradients", "all-reduce", "last backward", mesh.data, 1, payload, messages)


def _sharded(shape: Shape, mesh: Mesh, batch: Batch) -> Iterator[Traffic]:
    """Weights are put together for each pass; gradients are dealt out after each micro-batch."""
    count, layers = batch.micro_batches(mesh.data), shape.num_hidden_layers
    parameters, group = shape.rank_parameters(mesh.tensor), (mesh.shards, mesh.tensor)
    weights = count * parameters * batch.compute_bytes
    calls = count * (layers + 1)
    yield Traffic("weights", "all-gather", "forward", *group, weights, calls)
    if mesh.reshard_after_forward:
        again = count * layers * shape.layer_parameters(mesh.tensor) * batch.compute_bytes
        yield Traffic("weights", "all-gather", "backward", *group, again, count * layers)
    gradients = count * parameters * batch.reduce_bytes
    yield Traffic("gradients", "reduce-scatter", "backward", *group, gradients, calls)
    between = (mesh.replicas, mesh.shards * mesh.tensor)
    yield Traffic("gradients", "all-reduce", "backward", *between, gradients / mesh.shards, calls)


def _shared_layers(shape: Shape, mesh: Mesh, batch: Batch) -> Iterator[Traffic]:
    """Hidden values are gathered before each half of a layer and added up after it, both ways.

    A checkpointed layer gathers and adds up once more, except for the last sum, which nothing needs.
    """
    count, size, width = batch.micro_batches(mesh.data), mesh.tensor, shape.hidden_size
    tokens = batch.rank_sequences(mesh.data) * batch.sequence_length
    hidden = tokens * width * batch.compute_bytes
    layers, again = shape.num_hidden_layers, shape.num_hidden_layers * batch.recomputed_share
    gathers, sums = 4 * layers + 2 + 2 * again, 4 * layers + 1 + again

    def blocking(purpose: str, collective: str, payload: float, messages: float) -> Traffic:
        return Traffic(purpose, collective, "blocking", size, 1, payload, messages)

    yield blocking("hidden values", "all-gather", gathers * hidden, gathers * count)
    yield blocking("hidden values", "reduce-scatter", sums * hidden, sums * count)
    # The best logit, where it is, two sums, and the gradient of what the table is compared with.
    position = 4 + 8 + 8 + width * batch.compute_bytes
    yield blocking("loss", "all-reduce", batch.mlm_probability * tokens * position, 4 * count)
    rows = shape.max_position_embeddings + shape.type_vocab_size
    partial = (6 * layers + 2 + rows) * width * 4 / mesh.shards
    yield blocking("gradients of what all have", "all-reduce", partial, 1)


def _zero(shape: Shape, mesh: Mesh, batch: Batch) -> Iterator[Traffic]:
    count, parameters, stage = batch.micro_batches(mesh.data), shape.num_parameters, mesh.zero_stage
    size = parameters * batch.compute_bytes
    buckets = -(-size // _BUCKET_BYTES)
    if stage == 0:
        yield Traffic("gradients", "all-reduce", "last backward", mesh.data, 1, size, buckets)
    elif stage == 1:
        yield Traffic("gradients", "reduce-scatter", "last backward", mesh.data, 1, size, buckets)
        yield Traffic("weights", "all-gather", "blocking", mesh.data, 1, size, buckets)
    elif stage == 2:
        calls = count * buckets
        yield Traffic("gradients", "reduce-scatter", "backward", mesh.data, 1, count * size, calls)
        yield Traffic("weights", "all-gather", "blocking", mesh.data, 1, size, buckets)
    else:
        calls = count * (shape.num_hidden_layers + 1)
        for phase in ("forward", "backward"):
            yield Traffic("weights", "all-gather", phase, mesh.data, 1, count * size, calls)
        yield Traffic("gradients", "reduce-scatter", "backward", mesh.data, 1, count * size, calls)
