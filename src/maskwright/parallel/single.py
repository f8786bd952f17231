"""One process, one device.

In bf16 and fp16 the model computes on 16-bit weights while the optimiser changes fp32 numbers
(`masters.py`): weights are cast once a step, not once a forward pass, and no precision is lost from
one step to the next. Gradients of several micro-batches are added up in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.allocator import keep_large_buffers, release_unused_pages
from .engine import Accept, Objective, StepOutcome, accept_finite
from .gradient_norms import GradientNorms, gradient_norms
from .loss_scaling import LossScaler
from .masters import MakeOptimizer, make_masters
from .steps import (
    check_weights,
    clipping,
    judge,
    load_scaler,
    read_sums,
    scale_of,
    scaler_state,
    sum_losses,
)
from .world import SOLO, World

__all__ = ["SingleEngine"]


_UNTIDY_STEPS = 2


class SingleEngine:
    """Runs steps on one device.

    Args:
        model: fp32, on the CPU; it is moved and cast in place.
        make_optimizer: makes an optimiser of named fp32 parameters.
        device: where to compute.
        precision: `fp32`, `bf16` or `fp16`.
        max_grad_norm: gradients are scaled down to this norm; 0 turns that off.
    """

    equal_micro_batches = False
    world: World = SOLO

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        device: str,
        precision: str,
        max_grad_norm: float,
    ) -> None:
        if device == "cpu":
            # First what stays for the whole run; then only activations and gradients come and go.
            keep_large_buffers()
        self.model = model.to(device)
        self.max_grad_norm = max_grad_norm
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.parameters = list(model.parameters())
        self.masters = make_masters(self.model, make_optimizer, precision)
        self.scaler = LossScaler() if precision == "fp16" else None
        self._untidy_steps = _UNTIDY_STEPS if device == "cpu" else 0
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._tidy()

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int], *, last: bool = True
    ) -> dict[str, float]:
        """Add the gradient of each `loss_sum / total`; returns the sums with `loss_sum`."""
        if any(parameter.grad is not None for parameter in self.parameters):
            self.masters.collect()
        losses, sums = objective(self.model, batch, train=True)
        sum_losses(losses, totals, self.scaler).backward()  # type: ignore[no-untyped-call]
        return read_sums(losses, sums)

    @torch.no_grad()
    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The sums with `loss_sum`, without a gradient."""
        return read_sums(*objective(self.model, batch, train=False))

    def step(self, lr: float, accept: Accept = accept_finite) -> StepOutcome:
        """Clip, and change the weights; nothing changes if `accept` names a reason."""
        scale = scale_of(self.scaler)
        self._gather_gradients()
        norms = _unscaled(gradient_norms(self.masters.gradients().items()), scale)
        reason = judge(norms, self.scaler, accept)
        if reason is None:
            self.masters.apply(lr, clipping(norms, self.max_grad_norm) / scale)
        self.masters.clear()
        self._tidy()
        return StepOutcome(norms, reason)

    def _gather_gradients(self) -> None:
        """One rank has its gradient already."""

    def _tidy(self) -> None:
        """The first step leaves the heap in pieces; what lies between those in use is given back."""
        if self._untidy_steps:
            self._untidy_steps -= 1
            release_unused_pages()

    def state(self) -> dict[str, Any]:
        """Weights and optimiser state by parameter name."""
        found = {"model": self.masters.weights(), "optimizer": self.masters.optimizer_state()}
        return {**found, **scaler_state(self.scaler)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`.

        Raises:
            CheckpointError: a weight is missing, has another shape, or is not of this model.
        """
        check_weights(state["model"], self.shapes)
        self.masters.load(state["model"], state.get("optimizer", {}))
        load_scaler(self.scaler, state)

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by parameter name, on the CPU, on rank 0."""
        if not self.world.is_main:
            return {}
        return {name: weight.cpu() for name, weight in self.masters.weights().items()}


def _unscaled(norms: GradientNorms, scale: float) -> GradientNorms:
    return GradientNorms(norms.total / scale, {name: norm / scale for name, norm in norms.groups.items()})
