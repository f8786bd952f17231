"""Memory of one rank, estimated from the shape of the model, the mesh and a micro-batch.

Weights, gradients and optimiser state are exact. Activations are what the backward pass reads, counted
tensor by tensor. On the CPU layers keep less, in workspaces that gradients use again (`model/layers.py`,
`model/workspace.py`); there the reserved room is counted, and the highest of the moments of a step is
taken: the backward pass of the last layer, the end of the backward pass, when the largest gradients leave,
and the sum of gradients. A heap keeps what it served at one moment, and the blocks of another one seldom
fit there: what comes and goes at the other moments is counted beside, and a share of all for its other
holes. Left out are the libraries (0.4 GB on the CPU, one and more with CUDA and NCCL) and what the allocator
of a GPU wastes.

Legend: P parameters, N tokens of a micro-batch, M predicted positions, D hidden, I intermediate,
V vocabulary, H heads, S sequence, T ranks that share layers, c bytes of a number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .setup import Batch, Mesh, Shape

__all__ = ["RankMemory", "activation_bytes", "rank_memory"]

_NORM_BYTES = 8  # mean and scale of a layer norm, for one token
# As in model/layout.py and parallel/masters.py: values of a block of scores, and of a piece of a parameter.
_BLOCK_SCORES = 1 << 22
_PIECE_VALUES = 1 << 22
# As in model/attention.py: what a block of attention holds at a time, in rows of hidden values and in scores.
_BLOCK_ROWS, _BLOCK_SCORE_TENSORS = 8, 2
# As in parallel/cpu_messages.py: values of a message, and layers that are lent a buffer.
_MESSAGE_VALUES, _LENT_LAYERS = 1 << 20, 2
# Seen, not derived: holes of glibc's heap over what is in it, 4 to 9 % for whole copies and more for shards.
_HOLES = 0.05


@dataclass(frozen=True)
class RankMemory:
    """Bytes by what they are for.

    Args:
        weights: what stays of them, fp32 masters included.
        gradients: what is held of them at the end of a backward pass.
        optimizer: two fp32 moments a parameter, for AdamW.
        activations: what the backward pass reads, for one micro-batch; on the CPU the workspaces.
        unsharded: weights that are put together for a pass.
        buffers: what is on its way to other ranks, and what the optimiser computes with.
        kept: what the heap of a process on the CPU keeps of other moments of a step.
        holes: what else that heap wastes.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    unsharded: int = 0
    buffers: int = 0
    kept: int = 0
    holes: int = 0

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(vars(self).values())


def rank_memory(
    shape: Shape, mesh: Mesh, batch: Batch, kind: str = "cuda", *, cpu_offload: bool = False
) -> RankMemory:
    """Estimate the memory of a rank.

    Args:
        shape: of the model.
        mesh: of the ranks.
        batch: of the step.
        kind: `cuda` or `cpu`.
        cpu_offload: fsdp2 on CUDA: shards of weights, gradients and optimiser are in the host's memory.

    Returns:
        Bytes on the device where the rank computes.
    """
    found = _rank_memory(shape, mesh, batch, kind, cpu_offload)
    return found if kind != "cpu" else replace(found, holes=round(_HOLES * found.total))


def _rank_memory(shape: Shape, mesh: Mesh, batch: Batch, kind: str, cpu_offload: bool) -> RankMemory:
    whole, compute = shape.rank_parameters(mesh.tensor), batch.compute_bytes
    activations = activation_bytes(shape, batch, batch.micro_tokens(mesh.data), mesh.tensor, kind)
    if mesh.engine == "deepspeed":
        return _zero_memory(whole, mesh, compute, activations)
    if mesh.engine == "fsdp2":
        own = -(-whole // mesh.shards)
        state = (0, 0, 0) if cpu_offload and kind == "cuda" else (4 * own, 4 * own, 8 * own)
        if kind == "cuda":
            return RankMemory(*state, activations, *_around_the_pass(shape, mesh, batch))
        return _highest(state, *_sharded_on_the_cpu(shape, mesh, batch, activations))
    halves = 4 if kind == "cpu" and batch.precision == "bf16" else 6
    weights = whole * (4 if compute == 4 else halves)
    gradients = whole * _gradient_bytes(mesh, batch, kind)
    moments = _copies(shape, mesh, batch, kind, activations)
    return _highest((weights, gradients, 8 * whole), *moments)


# Activations, weights that are put together, and buffers, at some moment.
_Moment = tuple[int, int, int]


def _highest(state: tuple[int, int, int], staying: int, moments: list[_Moment]) -> RankMemory:
    """The moment with the most, and what the others have beyond the bytes that stay."""
    most = max(moments, key=sum)
    return RankMemory(*state, *most, sum(sum(moment) - staying for moment in moments if moment is not most))


def _gradient_bytes(mesh: Mesh, batch: Batch, kind: str) -> int:
    """Bytes a parameter of copies; on the CPU those of the last micro-batch lie in the workspaces."""
    accumulates = batch.micro_batches(mesh.data) > 1
    if kind == "cpu" and batch.precision != "fp16":
        held = 4 if accumulates else 0
    elif batch.compute_bytes == 4:
        held = 4
    else:
        held = 6 if accumulates else (2 if mesh.engine == "ddp" else 4)
    # All buckets are on their way at the end of the backward pass.
    return held + (batch.reduce_bytes if mesh.engine == "ddp" else 0)


def _zero_memory(parameters: int, mesh: Mesh, compute: int, activations: int) -> RankMemory:
    """ZeRO: optimiser, gradients and weights are cut one after the other.

    Source: Rajbhandari et al. 2020, arXiv 1910.02054, section 5; with fp32 masters and sums.
    """
    own = -(-parameters // mesh.data)
    state = own if mesh.zero_stage >= 1 else parameters
    gradients = own if mesh.zero_stage >= 2 else parameters
    copies = own if mesh.zero_stage == 3 else parameters
    masters = 0 if compute == 4 else 4 * state
    return RankMemory(compute * copies + masters, 4 * gradients, 8 * state, activations)


def _copies(shape: Shape, mesh: Mesh, batch: Batch, kind: str, activations: int) -> tuple[int, list[_Moment]]:
    """What stays; the backward pass, and on the CPU the sum of gradients after it."""
    table = shape.vocab_size * shape.hidden_size
    if (kind, batch.precision) != ("cpu", "bf16"):
        return 0, [(activations, 0, 8 * table)]
    piece, reserved = 4 * min(_PIECE_VALUES, table), _reserved_bytes(shape, batch, mesh)
    # A bf16 gradient is cast before it is added to fp32 ones, a piece at a time.
    cast = piece if batch.micro_batches(mesh.data) > 1 else 0
    return reserved + 2 * piece, [(activations, 0, 2 * piece), (reserved, 0, 2 * piece + cast)]


def _around_the_pass(shape: Shape, mesh: Mesh, batch: Batch) -> tuple[int, int]:
    """Weights that are put together, and buffers, on CUDA."""
    compute, reduce = batch.compute_bytes, batch.reduce_bytes
    table = -(-shape.vocab_size // mesh.tensor) * shape.hidden_size
    layer, rest = shape.layer_parameters(mesh.tensor), shape.rest_parameters(mesh.tensor)
    layers = shape.num_hidden_layers
    # The layer that is computed and the next; and the result of a gather before it is taken apart.
    together = layers if not mesh.reshard_after_forward else min(2, layers)
    unsharded = compute * (rest + together * layer + max(layer, rest))
    # The gradient of the word table waits for that of the lookups; layers are dealt out one by one.
    waiting = compute * rest
    leaving = max((compute + 2 * reduce) * layer, reduce * rest)
    if batch.micro_batches(mesh.data) > 1:
        leaving += reduce * rest // mesh.shards  # the new sum beside that of the micro-batches before
    return unsharded, waiting + leaving + 8 * table // mesh.shards


def _sharded_on_the_cpu(
    shape: Shape, mesh: Mesh, batch: Batch, activations: int
) -> tuple[int, list[_Moment]]:
    """What stays; the pass of the last layer, and its end, when what is left of the gradients leaves."""
    compute, reduce, shards = batch.compute_bytes, batch.reduce_bytes, mesh.shards
    layer, rest = shape.layer_parameters(mesh.tensor), shape.rest_parameters(mesh.tensor)
    table = -(-shape.vocab_size // mesh.tensor) * shape.hidden_size
    reserved = _reserved_bytes(shape, batch, mesh)
    # A layer's gradients and the sums of its shard, and where layers are put together.
    lent = reduce * (layer + layer // shards) + (_LENT_LAYERS * compute * layer if shards > 1 else 0)
    # One shard is not sent, but divided by one; sums of several micro-batches meet.
    alone = reduce if shards == 1 else 0
    added = reduce / shards if batch.micro_batches(mesh.data) > 1 else 0
    # The layer that is computed, the next, and the shards of a layer in the type of the model.
    together = min(2 if shards > 1 else 1, shape.num_hidden_layers)
    together = together if mesh.reshard_after_forward else shape.num_hidden_layers
    unsharded = compute * (rest + together * layer + layer // shards)
    # With workspaces the gradient of the word table is among the activations.
    waiting = compute * table if mesh.tensor > 1 else 0
    first = lent + waiting + alone * layer
    # What is sent, and what comes.
    sent = 2 * reduce * min(_MESSAGE_VALUES, rest) if shards > 1 else 0
    last = lent + waiting + reduce * rest + round((alone + added) * rest) + sent
    return reserved + lent, [(activations, unsharded, first), (reserved, 0, last)]


def activation_bytes(shape: Shape, batch: Batch, tokens: int, tensor: int = 1, kind: str = "cuda") -> int:
    """Bytes of what a micro-batch leaves for its backward pass.

    Of a layer that is the input of each matrix product, of each norm and of gelu; between blocks a rank has
    a T-th of the tokens, within them all tokens and a T-th of the columns. With f = 4 D, c = 2 and T = 1
    this is the 34 D of the source less what fused attention saves. On one CPU it is 9 D values.

    Args:
        shape: of the model.
        batch: precision, dropout and what is computed again.
        tokens: N.
        tensor: T.
        kind: `cuda` or `cpu`.

    Source: Korthikanti et al., "Reducing activation recomputation in large transformer models",
    2022, sections 4.1 and 4.2.
    """
    compute, width = batch.compute_bytes, shape.hidden_size
    mask = width if batch.dropout and kind == "cuda" else 0
    embeddings = tokens * (2 * compute * width + mask + _NORM_BYTES) // tensor
    predicted = round(tokens * batch.mlm_probability)
    head = predicted * compute * (4 * width + -(-shape.vocab_size // tensor))
    if kind == "cpu" and tensor == 1:
        return embeddings + _workspace_bytes(shape, batch, tokens, predicted)
    layer = tokens * _layer_bytes(shape, compute, mask, tensor, kind)
    kept = shape.num_hidden_layers * (1 - batch.recomputed_share) * layer
    # A layer that is computed again leaves its input, and everything while it is its turn.
    inputs = shape.num_hidden_layers * batch.recomputed_share * tokens * width * compute / tensor
    once = layer if batch.recomputed_share else 0
    return round(embeddings + kept + inputs + once + head)


def _layer_bytes(shape: Shape, compute: int, mask: int, tensor: int, kind: str) -> float:
    """What a layer leaves for a token with the framework's own operations."""
    width, inner = shape.hidden_size, shape.intermediate_size
    context = 0 if kind == "cpu" else width
    statistics = 2 * _NORM_BYTES + (0 if kind == "cpu" else 4 * shape.num_attention_heads)
    cut = compute * (5 * width + context + 2 * inner) + 2 * mask + statistics
    return 2 * compute * width + cut / tensor


def _reserved_values(shape: Shape, batch: Batch, tokens: int, predicted: int) -> int:
    """Values of the room that a model on one CPU keeps from step to step."""
    width, inner, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    matrices = 2 * width * (2 * width + inner)
    kept = layers * max(tokens * (5 * width + inner), matrices) + matrices
    logits = (predicted + predicted // 16) * shape.vocab_size
    rows, scores = _block(shape, batch, tokens)
    attention = 5 * tokens * width + _BLOCK_ROWS * rows * width + _BLOCK_SCORE_TENSORS * scores
    return kept + max(2 * tokens * inner, attention, logits) + shape.vocab_size * width


def _block(shape: Shape, batch: Batch, tokens: int) -> tuple[int, int]:
    """Tokens and scores of a block of attention."""
    length = batch.sequence_length
    scores = shape.num_attention_heads * length**2
    sequences = max(1, min(tokens // length, _BLOCK_SCORES // scores))
    return sequences * length, sequences * scores


def _reserved_bytes(shape: Shape, batch: Batch, mesh: Mesh) -> int:
    """Room that stays when nothing is kept for a backward pass; ranks that share layers reserve none."""
    tokens = batch.micro_tokens(mesh.data)
    if mesh.tensor > 1:
        return 0
    predicted = round(tokens * batch.mlm_probability)
    return batch.compute_bytes * _reserved_values(shape, batch, tokens, predicted)


def _workspace_bytes(shape: Shape, batch: Batch, tokens: int, predicted: int) -> int:
    """Room that a model on one CPU reserves, and what it keeps beside it."""
    width, layers, compute = shape.hidden_size, shape.num_hidden_layers, batch.compute_bytes
    beside = 3 * tokens * width  # a gradient and the values that it meets come and go
    # A mask of dropout is as wide as the values it meets, and made of random bytes.
    _, scores = _block(shape, batch, tokens)
    mask = (compute + 1) * scores if batch.dropout else 0
    values = _reserved_values(shape, batch, tokens, predicted) + beside + 4 * predicted * width
    return compute * values + mask + 2 * layers * tokens * _NORM_BYTES
