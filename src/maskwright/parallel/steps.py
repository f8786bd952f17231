"""What the steps of all engines have in common: losses, scales, norms over ranks, and checks of a state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import CheckpointError
from .engine import Accept, accept_finite
from .gradient_norms import GROUPS, GradientNorms, accurate_norms, group_of
from .loss_scaling import LossScaler
from .world import World

__all__ = [
    "check_weights",
    "clipping",
    "judge",
    "load_scaler",
    "norms_of_shards",
    "read_sums",
    "scale_of",
    "scaler_state",
    "sum_losses",
]

_REMEDY = "resume with the model that the run began with"


def scale_of(scaler: LossScaler | None) -> float:
    """What the loss is multiplied with; 1 without a scaler."""
    return 1.0 if scaler is None else scaler.scale


def sum_losses(losses: Mapping[str, Tensor], totals: Mapping[str, int], scaler: LossScaler | None) -> Tensor:
    """What to differentiate: each loss divided by its targets, added up, and scaled for fp16."""
    loss = torch.stack([value / totals[name] for name, value in losses.items()]).sum()
    return loss * scale_of(scaler)


def read_sums(losses: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses under their names with `_sum`, and further sums, as numbers."""
    named = {f"{name}_sum": value for name, value in losses.items()}
    return {name: value.item() for name, value in (named | dict(sums)).items()}


def judge(norms: GradientNorms, scaler: LossScaler | None, accept: Accept) -> str | None:
    """Why no weight may change, or None; an overflow in fp16 is part of the scaler's work."""
    reason = None if scaler is None else scaler.update(accept_finite(norms) is not None)
    return reason or accept(norms)


def clipping(norms: GradientNorms, limit: float) -> float:
    """What the gradient is multiplied with, so that its norm is at most the limit; 0 turns that off."""
    return limit / norms.total if 0 < limit < norms.total else 1.0


def norms_of_shards(
    world: World, grads: Mapping[str, Tensor], copies: Mapping[str, int], scale: float
) -> GradientNorms:
    """Norms of a gradient that lies in shards over ranks; what several ranks hold alike counts once.

    Args:
        world: the processes.
        grads: this rank's shards by parameter; ranks may have shards of different parameters.
        copies: how many ranks hold the same shard, by parameter; of all parameters that have a gradient.
        scale: what the gradients are multiplied with.
    """
    squares = dict.fromkeys(GROUPS, 0.0)
    found: list[float] = accurate_norms(list(grads.values())).tolist()
    for name, norm in zip(grads, found, strict=True):
        squares[group_of(name)] += (norm / scale) ** 2 / copies[name]
    rows = world.exchange(list(squares.values()))
    totals = [sum(column) for column in zip(*rows, strict=True)]
    present = {group_of(name) for name in copies}
    groups = {
        group: math.sqrt(total) for group, total in zip(squares, totals, strict=True) if group in present
    }
    return GradientNorms(math.sqrt(sum(totals)), groups)


def check_weights(weights: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    """Compare the weights of a checkpoint with the model, before any of them is taken over.

    Raises:
        CheckpointError: a weight is missing, has another shape, or is not of this model.
    """
    extra = sorted(weights.keys() - shapes.keys())
    if extra:
        raise CheckpointError(f"{extra[0]} of the checkpoint is not in the model; {_REMEDY}")
    for name, shape in shapes.items():
        found = weights.get(name)
        if found is None or found.shape != shape:
            said = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise CheckpointError(f"{name} is {said} in the checkpoint, expected {tuple(shape)}; {_REMEDY}")


def scaler_state(scaler: LossScaler | None) -> dict[str, Any]:
    """The part of an engine's state that belongs to the scaler; empty without one."""
    if scaler is None:
        return {}
    return {"scaler": {name: torch.tensor(value) for name, value in scaler.state().items()}}


def load_scaler(scaler: LossScaler | None, state: Mapping[str, Any]) -> None:
    """Take over the scaler's part of an engine's state, where both have one."""
    if scaler is not None and "scaler" in state:
        scaler.load(state["scaler"])
