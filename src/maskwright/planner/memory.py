"""Memory of one training process, estimated from the shape of the model and of a micro-batch.

The state is exact. The activations are what the backward pass reads, counted tensor by tensor for
a RoBERTa layer; buffers that come and go inside an operation, the allocator's waste and the
libraries themselves (half a gigabyte and more) are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigError
from .flops import num_parameters

__all__ = ["TrainingMemory", "training_memory_bytes"]

_MASTER_BYTES = 4
_NORM_BYTES = 8  # mean and scale of a layer norm, for one token
_LOSS_BYTES = 4  # the loss is computed in 32 bits whatever the rest is


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by what they are for.

    Args:
        parameters: weights in the type that the arithmetic uses.
        master_weights: 32-bit copy that the optimiser changes; 0 where the weights are that.
        gradients: one for each parameter.
        optimizer: state of the optimiser, two 32-bit moments for AdamW.
        activations: what the backward pass reads, for one micro-batch.
    """

    parameters: int
    master_weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.parameters + self.master_weights + self.gradients + self.optimizer + self.activations


def training_memory_bytes(
    *,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    vocab_size: int,
    max_position_embeddings: int,
    sequence_length: int,
    micro_batch_size: int,
    type_vocab_size: int = 1,
    compute_bytes: int = 4,
    gradient_bytes: int = 4,
    optimizer_bytes: int = 8,
    dropout: bool = True,
    dropout_mask_bytes: int = 1,
    fused_attention: bool = True,
    head_positions_share: float = 1.0,
) -> TrainingMemory:
    """Estimate the memory of training one replica, without sharding and recomputation.

    Per layer and token, with width d, inner width f, A heads, S tokens attended to and c bytes a
    number, the backward pass reads c(8d + 2f) bytes: the input, queries, keys, values, context,
    the inputs of two layer norms, the input of the feed-forward block, and its inner values before
    and after the activation. Dropout adds two masks of d entries. Attention that is not fused adds
    cAS bytes of weights, and with dropout their mask and the c bytes a number of what is left of
    them; fused attention adds 4A bytes. Each layer norm keeps a mean and a scale. For f = 4d and
    c = 2 this is the 34d + 5AS of the source, and the 16 bytes of the norms.

    Args:
        hidden_size: width of the residual stream.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads a layer; must divide the width.
        intermediate_size: width inside the feed-forward block.
        vocab_size: entries of the vocabulary.
        max_position_embeddings: rows of the position table.
        sequence_length: tokens in a sequence.
        micro_batch_size: sequences in one forward pass.
        type_vocab_size: rows of the token-type table.
        compute_bytes: bytes of a number in the forward pass: 4, or 2 for bf16.
        gradient_bytes: bytes of a number of the gradient.
        optimizer_bytes: bytes of optimiser state for one parameter: 8 for AdamW.
        dropout: whether hidden values and attention weights are dropped.
        dropout_mask_bytes: bytes of one entry of a mask: 1 on a GPU, 4 in fp32 torch on a CPU.
        fused_attention: whether the weights of the attention are never stored. On a CPU torch
            stores them whenever they are dropped.
        head_positions_share: share of tokens that go through the language-model head.

    Raises:
        ConfigError: a size makes no sense.

    Source: Korthikanti et al., "Reducing activation recomputation in large transformer models",
    2022, section 4.1.
    """
    if compute_bytes not in (2, 4):
        raise ConfigError(f"compute_bytes is {compute_bytes}, expected 4 (fp32) or 2 (bf16, fp16)")
    if sequence_length < 1 or micro_batch_size < 1:
        raise ConfigError(
            f"the micro-batch is {micro_batch_size} x {sequence_length}, expected at least 1 x 1"
        )
    count = num_parameters(
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=type_vocab_size,
    )
    mask_bytes = dropout_mask_bytes if dropout else 0
    weight_bytes = 2 * compute_bytes + mask_bytes if dropout else compute_bytes
    attention = num_attention_heads * (4 if fused_attention else sequence_length * weight_bytes)
    layer = _layer_bytes(hidden_size, intermediate_size, compute_bytes, mask_bytes) + attention
    embeddings = (compute_bytes + mask_bytes) * hidden_size + _NORM_BYTES
    head = head_positions_share * _head_bytes(hidden_size, vocab_size, compute_bytes)
    token = embeddings + num_hidden_layers * layer + head
    return TrainingMemory(
        parameters=count * compute_bytes,
        master_weights=0 if compute_bytes == _MASTER_BYTES else count * _MASTER_BYTES,
        gradients=count * gradient_bytes,
        optimizer=count * optimizer_bytes,
        activations=round(token * sequence_length * micro_batch_size),
    )


def _layer_bytes(hidden_size: int, intermediate_size: int, compute_bytes: int, mask_bytes: int) -> int:
    """What one layer keeps for one token, without the weights of the attention."""
    values = compute_bytes * (8 * hidden_size + 2 * intermediate_size)
    return values + 2 * (mask_bytes * hidden_size + _NORM_BYTES)


def _head_bytes(hidden_size: int, vocab_size: int, compute_bytes: int) -> int:
    """What head and loss keep for one position.

    The head keeps four hidden states and the logits; the loss keeps log-probabilities and, for a
    moment, their gradient.
    """
    return compute_bytes * (4 * hidden_size + vocab_size) + 2 * _LOSS_BYTES * vocab_size
