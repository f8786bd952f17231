"""What a prediction is about: the shape of a model, the batch of a step, and how ranks share the work.

Plain numbers, checked once, so that the other parts of the planner need not doubt them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import ConfigError
from .flops import num_parameters

__all__ = ["Batch", "Mesh", "Shape"]

_ENGINES = ("single", "ddp", "fsdp2", "deepspeed")
_COMPUTE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Shape:
    """A RoBERTa encoder with its language-model head; names as in `config.json`.

    Args:
        hidden_size: width of the residual stream.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads a layer; must divide the width.
        intermediate_size: width inside the feed-forward block.
        vocab_size: entries of the vocabulary.
        max_position_embeddings: rows of the position table.
        type_vocab_size: rows of the token-type table.

    Raises:
        ConfigError: a size is not positive, or the heads do not divide the width.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int = 50_265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1

    def __post_init__(self) -> None:
        num_parameters(**vars(self))

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        return num_parameters(**vars(self))

    def layer_parameters(self, tensor: int = 1) -> int:
        """Parameters of a layer on one of the ranks that share it; norms and two biases are on all."""
        width, inner = self.hidden_size, self.intermediate_size
        shared = 4 * width**2 + 2 * width * inner + 3 * width + inner
        return shared // tensor + 6 * width

    def rest_parameters(self, tensor: int = 1) -> int:
        """Parameters outside the layers on one rank; of those only the word table and its bias are cut."""
        width = self.hidden_size
        words = -(-self.vocab_size // tensor) * (width + 1)
        tables = (self.max_position_embeddings + self.type_vocab_size) * width
        return words + tables + width**2 + 5 * width

    def rank_parameters(self, tensor: int = 1) -> int:
        """Parameters on one of the ranks that share layers."""
        return self.num_hidden_layers * self.layer_parameters(tensor) + self.rest_parameters(tensor)


@dataclass(frozen=True)
class Batch:
    """What a step computes.

    Args:
        sequences: of the step, on all ranks together.
        micro_sequences: computed at a time by the ranks that share layers.
        sequence_length: tokens of a sequence.
        mlm_probability: share of tokens that are predicted.
        precision: `fp32`, `bf16` or `fp16`.
        reduce_precision: in which gradients are added up.
        dropout: whether values are dropped.
        checkpointing: `none`, `selective` (every second layer) or `full`: what is computed again.

    Raises:
        ConfigError: a number is not positive, or a name is unknown.
    """

    sequences: int
    micro_sequences: int
    sequence_length: int
    mlm_probability: float = 0.15
    precision: str = "bf16"
    reduce_precision: str = "fp32"
    dropout: bool = True
    checkpointing: Literal["none", "selective", "full"] = "none"

    def __post_init__(self) -> None:
        for name in ("sequences", "micro_sequences", "sequence_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.mlm_probability <= 1:
            raise ConfigError(f"mlm_probability is {self.mlm_probability}, expected 0 to 1")
        if self.precision not in _COMPUTE_BYTES:
            raise ConfigError(f'precision is "{self.precision}", expected {", ".join(_COMPUTE_BYTES)}')
        if self.reduce_precision not in ("fp32", "bf16"):
            raise ConfigError(f'reduce_precision is "{self.reduce_precision}", expected fp32 or bf16')
        if self.checkpointing not in ("none", "selective", "full"):
            raise ConfigError(f'checkpointing is "{self.checkpointing}", expected none, selective or full')

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the forward pass."""
        return _COMPUTE_BYTES[self.precision]

    @property
    def reduce_bytes(self) -> int:
        """Bytes of a number of a gradient on its way to other ranks."""
        return _COMPUTE_BYTES[self.reduce_precision]

    @property
    def recomputed_share(self) -> float:
        """Share of the layers whose forward pass runs twice."""
        return {"none": 0.0, "selective": 0.5, "full": 1.0}[self.checkpointing]

    def micro_batches(self, data: int) -> int:
        """Micro-batches that the busiest of `data` shares computes in a step."""
        return -(-self.rank_sequences(data) // self.micro_sequences)

    def rank_sequences(self, data: int) -> int:
        """Sequences that the busiest of `data` shares computes in a step."""
        return -(-self.sequences // data)

    def micro_tokens(self, data: int) -> int:
        """Tokens of the largest micro-batch."""
        return min(self.micro_sequences, self.rank_sequences(data)) * self.sequence_length


@dataclass(frozen=True)
class Mesh:
    """How ranks share the work. Ranks that share layers lie side by side, then those that shard weights.

    Args:
        engine: `single`, `ddp`, `fsdp2` or `deepspeed`.
        data: shares of the batch.
        tensor: ranks that share each layer; fsdp2 only.
        replicas: copies of the sharded model; fsdp2 only, divides `data`.
        reshard_after_forward: fsdp2: give weights back between forward and backward pass.
        zero_stage: deepspeed: what is sharded, 0 to 3.

    Raises:
        ConfigError: the numbers make no mesh.
    """

    engine: str
    data: int = 1
    tensor: int = 1
    replicas: int = 1
    reshard_after_forward: bool = True
    zero_stage: int = 2

    def __post_init__(self) -> None:
        if self.engine not in _ENGINES:
            raise ConfigError(f'engine is "{self.engine}", expected one of {", ".join(_ENGINES)}')
        if min(self.data, self.tensor, self.replicas) < 1:
            raise ConfigError(f"the mesh {self} has no rank; every number must be at least 1")
        if self.engine != "fsdp2" and self.tensor * self.replicas > 1:
            raise ConfigError(f"tensor and replicas are for fsdp2, but engine is {self.engine}")
        if self.engine == "single" and self.data > 1:
            raise ConfigError(f"engine is single, but data is {self.data}; choose ddp or fsdp2")
        if self.data % self.replicas:
            raise ConfigError(f"replicas is {self.replicas}, which does not divide data {self.data}")
        if not 0 <= self.zero_stage <= 3:
            raise ConfigError(f"zero_stage is {self.zero_stage}, expected 0 to 3")

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.data * self.tensor

    @property
    def shards(self) -> int:
        """Ranks among which the weights of a copy are cut."""
        return self.data // self.replicas if self.engine == "fsdp2" else 1

    def __str__(self) -> str:
        text = f"{self.engine} x {self.data}"
        if self.engine == "deepspeed":
            return f"{text}, zero_stage {self.zero_stage}"
        text += f", tensor {self.tensor}" if self.tensor > 1 else ""
        text += f", replicas {self.replicas}" if self.replicas > 1 else ""
        return text + ("" if self.reshard_after_forward else ", no resharding")
