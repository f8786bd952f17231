"""The `ds_config.json` of a run: the user's own, with what the recipe decides put in its place.

The recipe stays in charge of what a step is. A value of the file that says something else is refused, all
of them at once; "auto" and what the file leaves out are filled in. How the loss of fp16 is scaled is taken
from the file, and what of that has nothing to correspond to is named. Costs the reading of one small file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from .config import ParallelConfig
from .loss_scaling import LossScaler

__all__ = ["StepPlan", "make_deepspeed_config", "make_loss_scaler"]

_AUTO = "auto"
# They change what a step computes, or split the ranks in a way that the recipe knows nothing of.
_FOREIGN = (
    "autotuning",
    "compression_training",
    "curriculum_learning",
    "data_efficiency",
    "elasticity",
    "hybrid_engine",
    "pipeline",
    "prescale_gradients",
    "progressive_layer_drop",
    "quantize_training",
    "sparse_attention",
    "sparse_gradients",
    "tensor_parallel",
    "torch_autocast",
)
_HALF = ("fp16", "bf16")
# What is said elsewhere of the precision of a run, or checked to say the same.
_HEARD = ("enabled", "loss_scale", "fp16_master_weights_and_grads", "bf16_master_weights_and_grads")
# Values by which nothing is asked for that the engine does not do.
_AS_HERE = {
    "auto_cast": False,
    "bf16_optimizer_states": False,
    "check_grad_overflow": True,
    "consecutive_hysteresis": False,
    "hysteresis": 1,
    "immediate_grad_update": False,
}
_OWN_WAY = "the engine has its own way"
_WHY = {
    "hysteresis": "the first overflow lowers the loss scale",
    "consecutive_hysteresis": "the first overflow lowers the loss scale",
    "check_grad_overflow": "a step whose gradient is not finite is always skipped",
}
_LARGEST_POWER = 24
_FP32_NAMES = ("torch.float32", "float32", "float", "fp32")


@dataclass(frozen=True)
class StepPlan:
    """What the recipe says of a step.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`.
        max_grad_norm: gradients are scaled down to this norm; 0 turns that off.
        num_processes: processes that see different samples.
        sequences: sequences of one optimiser step; None where it is not known here.
        micro_sequences: sequences computed at a time by a process; None where it is not known here.
    """

    precision: str
    max_grad_norm: float
    num_processes: int
    sequences: int | None = None
    micro_sequences: int | None = None


def make_deepspeed_config(parallel: ParallelConfig, plan: StepPlan) -> dict[str, Any]:
    """The config that DeepSpeed is started with.

    Args:
        parallel: names the file, or the stage and whether to offload.
        plan: what the recipe says.

    Returns:
        A config of our own making; the accumulation in it is 1, since the engine sets its boundaries itself.

    Raises:
        ConfigError: the file cannot be read, or contradicts the recipe.
    """
    path = parallel.deepspeed_config
    given = {"zero_optimization": {"stage": parallel.zero_stage}} if path is None else _read(Path(path))
    conflicts = list(_conflicts(given, plan))
    if conflicts:
        raise ConfigError(
            f"{path} contradicts the recipe, which decides what a step is:\n  " + "\n  ".join(conflicts)
        )
    found: dict[str, Any] = _without_auto(given)
    zero = found.setdefault("zero_optimization", {})
    stage = zero.setdefault("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage is {stage!r}, expected 0, 1, 2 or 3")
    if stage == 0 and plan.precision != "fp32":
        raise ConfigError(
            f"ZeRO stage 0 is here for fp32 only, but the precision is {plan.precision}; set "
            "parallel.zero_stage=1, or parallel.engine=ddp, which shards nothing either"
        )
    if parallel.cpu_offload and stage:
        zero.setdefault("offload_optimizer", {"device": "cpu"})
        if stage == 3:
            zero.setdefault("offload_param", {"device": "cpu"})
    for key in ("optimizer", "scheduler", "gradient_clipping", "bfloat16", "train_batch_size", *_HALF):
        found.pop(key, None)
    if plan.precision != "fp32":
        # The engine scales losses itself, so DeepSpeed's scale stays 1.
        found[plan.precision] = {"enabled": True} | ({"loss_scale": 1} if plan.precision == "fp16" else {})
        if stage >= 2:
            found.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    return found | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def make_loss_scaler(parallel: ParallelConfig, precision: str) -> tuple[LossScaler | None, list[str]]:
    """How the loss is scaled, as the file says, and what it says in vain.

    Args:
        parallel: names the file, if there is one.
        precision: `fp32`, `bf16` or `fp16`.

    Returns:
        The scaler, None unless the precision is fp16; and a sentence for each value of the section of the
        precision that is not followed.

    Raises:
        ConfigError: a value makes no sense.
    """
    path = parallel.deepspeed_config
    if precision not in _HALF:
        return None, []
    file = {} if path is None else _read(Path(path))
    given = (
        {**file.get("bfloat16", {}), **file.get("bf16", {})} if precision == "bf16" else file.get("fp16", {})
    )
    given = {name: said for name, said in given.items() if said != _AUTO and name not in _HEARD}
    values: dict[str, float] = {}
    in_vain = []
    if precision == "fp16":
        if (power := _integer(path, given, "initial_scale_power", 0)) is not None:
            values["initial"] = 2.0 ** min(power, _LARGEST_POWER)
            if power > _LARGEST_POWER:
                said = f"fp16.initial_scale_power {power} is too large; it begins with {_LARGEST_POWER}"
                in_vain.append(f"{path}: {said}")
        if (window := _integer(path, given, "loss_scale_window", 1)) is not None:
            values["growth_interval"] = window
        if (smallest := _integer(path, given, "min_loss_scale", 1)) is not None:
            values["minimum"] = _smallest(path, smallest, values.get("initial", 2.0**16))
    for name, said in given.items():
        if _AS_HERE.get(name, ...) != said:
            in_vain.append(
                f"{path}: {precision}.{name} {json.dumps(said)} is ignored: {_WHY.get(name, _OWN_WAY)}"
            )
    return (LossScaler(**values) if precision == "fp16" else None), in_vain  # type: ignore[arg-type] # by name


def _integer(path: str | None, given: dict[str, Any], name: str, least: int) -> int | None:
    """Take a value out of the section fp16."""
    said = given.pop(name, None)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int) or said < least:
        raise ConfigError(f"{path}: fp16.{name} is {said!r}, expected an integer from {least}; correct it")
    return said


def _smallest(path: str | None, value: int, initial: float) -> float:
    if value & (value - 1) or value > initial:
        raise ConfigError(
            f"{path}: fp16.min_loss_scale is {value}, expected a power of two up to the first scale, "
            f"{initial:g}; correct it"
        )
    return float(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); set parallel.deepspeed_config to a ds_config.json"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}; correct it") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is a {type(found).__name__}, expected an object with DeepSpeed's settings")
    for key in ("zero_optimization", "data_types", "bfloat16", *_HALF):
        if not isinstance(found.get(key, {}), dict):
            raise ConfigError(f"{path}: {key} is {found[key]!r}, expected an object")
    return found


def _conflicts(given: Mapping[str, Any], plan: StepPlan) -> Iterator[str]:
    """A line for each value that says something else than the recipe."""
    for key, (mine, source) in _numbers(plan).items():
        said = given.get(key, _AUTO)
        if said in (_AUTO, mine):
            continue
        if mine is None:
            yield f'{key} is {said!r}, the recipe has {source}; remove it or write "auto"'
        else:
            yield f'{key} is {said!r}, the recipe says {mine!r} ({source}); change one, or write "auto"'
    for key in ("bfloat16", *_HALF):
        said, mine = given.get(key, {}).get("enabled", _AUTO), plan.precision == key.replace("bfloat", "bf")
        if said not in (_AUTO, mine):
            yield (
                f"{key}.enabled is {said!r}, the recipe says {mine} (precision={plan.precision}); "
                'change one, or write "auto"'
            )
    yield from _unsupported(given, plan)
    for key in ("optimizer", "scheduler"):
        parameters = given.get(key, {}).get("params", {}) if isinstance(given.get(key, {}), dict) else None
        fixed = parameters is None or any(value != _AUTO for value in parameters.values())
        if key in given and given[key] != _AUTO and fixed:
            yield f"{key} is {json.dumps(given[key])}, the recipe has its own ({key}); remove it"
    for key in _FOREIGN:
        said = given.get(key)
        if said not in (None, False, _AUTO) and not (isinstance(said, dict) and said.get("enabled") is False):
            yield f"{key} is {json.dumps(said)}, the recipe has nothing like it; remove it"


def _unsupported(given: Mapping[str, Any], plan: StepPlan) -> Iterator[str]:
    """A line for each value under a heading of DeepSpeed that the engine cannot follow."""
    zero, types = given.get("zero_optimization", {}), given.get("data_types", {})
    if zero.get("round_robin_gradients", _AUTO) not in (_AUTO, False):
        # Without padding it links weights to the shards of others (seen in 0.19.8).
        yield (
            "zero_optimization.round_robin_gradients is true, with which DeepSpeed mistakes one weight for "
            "another in checkpoints; remove it"
        )
    accumulation = types.get("grad_accum_dtype")
    if plan.precision == "bf16" and zero.get("stage") == 1 and accumulation in _FP32_NAMES:
        yield (
            f"data_types.grad_accum_dtype is {accumulation!r}, which is here for stages 2 and 3; "
            "set zero_optimization.stage to 2, or remove it"
        )
    for key in ("bfloat16", *_HALF):
        for name, said in given.get(key, {}).items():
            if name.endswith("_master_weights_and_grads") and said not in (_AUTO, False):
                yield f"{key}.{name} is {json.dumps(said)}, the recipe keeps fp32 weights; remove it"
    scale = given.get("fp16", {}).get("loss_scale", _AUTO)
    if plan.precision == "fp16" and scale not in (_AUTO, 0):
        yield f"fp16.loss_scale is {scale!r}, the recipe has a dynamic one; set it to 0"


def _numbers(plan: StepPlan) -> dict[str, tuple[float | None, str]]:
    """Keys of which the recipe knows the value, and where it stands."""
    micro, sequences, accumulation = plan.micro_sequences, plan.sequences, None
    if micro is not None and sequences is not None:
        accumulation = -(-sequences // (micro * plan.num_processes))
    return {
        "train_batch_size": (sequences, "batch.sequences"),
        "train_micro_batch_size_per_gpu": (micro, "batch.micro_sequences"),
        "gradient_accumulation_steps": (accumulation, "batch.sequences over micro-batches of all processes"),
        "gradient_clipping": (plan.max_grad_norm, "max_grad_norm"),
    }


def _without_auto(value: Any) -> Any:
    """The same without what says "auto": DeepSpeed's own defaults take its place."""
    if isinstance(value, dict):
        return {key: _without_auto(inner) for key, inner in value.items() if inner != _AUTO}
    return value
