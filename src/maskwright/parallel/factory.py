"""Engines by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from ..core.errors import ConfigError
from ..model.encoder import Block
from .config import ParallelConfig
from .ddp import DataParallelEngine
from .engine import Engine
from .masters import MakeOptimizer
from .single import SingleEngine
from .world import World

__all__ = ["EngineParts", "make_engine"]


@dataclass(frozen=True)
class EngineParts:
    """What every engine is made of.

    Attributes:
        model: fp32, on the CPU, the same on every rank; or on the meta device, with `first_weights`.
        make_optimizer: makes an optimiser of named fp32 parameters.
        device: where to compute.
        precision: `fp32`, `bf16` or `fp16`.
        max_grad_norm: gradients are scaled down to this norm; 0 turns that off.
        prepare: compiles, checkpoints activations and changes products of a model that is on its device.
            Each engine calls it once: after layers are shared out (tensor parallel), before weights are
            sharded.
        sequences: of a step of all ranks, to compare with what a DeepSpeed config says; None where unknown.
        micro_sequences: likewise, of a micro-batch.
        first_weights: for a model on the meta device, which only fsdp2 takes: the values of all its
            parameters, the same on every rank, so that none needs memory for the whole model.
    """

    model: nn.Module
    make_optimizer: MakeOptimizer
    device: str
    precision: str
    max_grad_norm: float
    prepare: Callable[[nn.Module], None] = lambda model: None
    sequences: int | None = None
    micro_sequences: int | None = None
    first_weights: Callable[[], Iterator[Block]] | None = None


def make_engine(config: ParallelConfig, parts: EngineParts, world: World) -> Engine:
    """The engine of a config.

    Raises:
        UserError: it does not fit the number of processes, or a library is missing.
    """
    name = config.resolve(world.size)
    assert name == "fsdp2" or parts.first_weights is None
    plain = (parts.model, parts.make_optimizer, parts.device, parts.precision, parts.max_grad_norm)
    engine: Engine
    if name == "single":
        if world.size > 1:
            raise ConfigError(
                f'"parallel.engine" is "single", but there are {world.size} processes; set '
                "parallel.engine=ddp, or start one process"
            )
        engine = SingleEngine(*plain)
    elif name == "ddp":
        engine = DataParallelEngine(
            *plain,
            world=world,
            reduce_precision=config.reduce_precision,
            bucket_bytes=config.bucket_mb << 20,
        )
    elif name == "fsdp2":
        from .fsdp import ShardedEngine

        return ShardedEngine(parts, config, world)
    else:
        from .deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(parts, config, world)
    parts.prepare(engine.model)
    return engine
