"""How a run is spread over processes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config

__all__ = ["EngineName", "ParallelConfig", "is_sharded"]

EngineName = Literal["single", "ddp", "fsdp2", "deepspeed"]


class ParallelConfig(Config):
    """How a run is spread over processes. Samples, masks and losses do not depend on it."""

    engine: EngineName | Literal["auto"] = Field(
        "auto",
        description="single: one process; ddp: whole copies; fsdp2: weights in shards; deepspeed: ZeRO; "
        "auto: single for one process, else ddp",
    )
    tensor: int = Field(1, ge=1, description="fsdp2: processes that share each layer (tensor parallel)")
    replicas: int = Field(1, ge=1, description="fsdp2: copies of the sharded model (hybrid sharding)")
    reshard_after_forward: bool = Field(
        True, description="fsdp2: give the weights of a layer back between forward and backward pass"
    )
    cpu_offload: bool = Field(
        False, description="fsdp2, deepspeed: keep shards of weights and optimiser on the CPU"
    )
    reduce_precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="ddp, fsdp2: in which gradients are added up over processes"
    )
    bucket_mb: int = Field(64, ge=1, description="ddp: gradients sent at a time, in MiB")
    zero_stage: int = Field(2, ge=0, le=3, description="deepspeed: what is sharded; ignored with a config")
    deepspeed_config: str | None = Field(None, description="deepspeed: path of a ds_config.json")
    timeout_seconds: float = Field(
        600.0, gt=0, description="seconds after which a run gives up on a process that does not answer"
    )

    @model_validator(mode="after")
    def _options_belong_to_the_engine(self) -> Self:
        given = self.model_fields_set
        owners = {
            "tensor": ("fsdp2",),
            "replicas": ("fsdp2",),
            "reshard_after_forward": ("fsdp2",),
            "cpu_offload": ("fsdp2", "deepspeed"),
            "zero_stage": ("deepspeed",),
            "deepspeed_config": ("deepspeed",),
        }
        for name, engines in owners.items():
            changed = getattr(self, name) != type(self).model_fields[name].default
            if name in given and changed and self.engine not in engines:
                raise ValueError(
                    f"{name} is for engine {' or '.join(engines)}, but engine is {self.engine}; set "
                    f"parallel.engine={engines[0]}"
                )
        return self

    def resolve(self, num_processes: int) -> EngineName:
        """The engine, where `auto` decides by the number of processes.

        Args:
            num_processes: of the run.
        """
        if self.engine != "auto":
            return self.engine
        return "single" if num_processes == 1 else "ddp"


def is_sharded(config: ParallelConfig) -> bool:
    """Whether no process has the whole model, so that only the engine may compute with it."""
    return config.engine in ("fsdp2", "deepspeed")
