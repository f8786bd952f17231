"""One process, one device.

In bf16 the model computes on bf16 weights while the optimiser keeps fp32 copies: weights are
cast once a step, not once a forward pass, and no precision is lost from one step to the next.
Gradients of several micro-batches are added up in fp32. Cost of bf16: two bytes a parameter more
than fp32 weights, and half the memory and time of everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..core.allocator import keep_large_buffers
from ..core.errors import CheckpointError
from .engine import Objective, StepOutcome

__all__ = ["SingleEngine"]

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]


class SingleEngine:
    """Runs steps on one device.

    Args:
        model: fp32, on the CPU; it is moved and cast in place.
        make_optimizer: makes an optimiser of named fp32 parameters.
        device: where to compute.
        precision: `fp32` or `bf16`.
        max_grad_norm: gradients are scaled down to this norm; 0 turns that off.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        device: str,
        precision: str,
        max_grad_norm: float,
    ) -> None:
        self.model = model.to(device)
        self.max_grad_norm = max_grad_norm
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.masters = self.parameters
        if precision == "bf16":
            # The masters take over the fp32 memory, so both are never held twice.
            self.masters = [nn.Parameter(parameter.data) for parameter in self.parameters]
            self.model.to(torch.bfloat16)
        self.optimizer = make_optimizer(zip(self.names, self.masters, strict=True))
        self._make_optimizer_state()
        if device == "cpu":
            # From here on only activations and gradients come and go, and they share one heap.
            keep_large_buffers()

    @torch.no_grad()
    def _make_optimizer_state(self) -> None:
        """Let the optimiser allocate its state now, before activations break memory up.

        A step with no gradient and no rate changes no weight and leaves means of zero; what is
        left of it is the count of steps.
        """
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        for master in self.masters:
            master.grad = torch.zeros_like(master)
            self.optimizer.step()
            master.grad = None
        for state in self.optimizer.state.values():
            state["step"].zero_()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def total(self, value: int) -> int:
        """One rank: the count itself."""
        return value

    def forward_backward(self, objective: Objective, batch: Any, num_targets: int) -> dict[str, float]:
        """Add the gradient of `loss_sum / num_targets`; returns the sums with `loss_sum`."""
        if self.masters is not self.parameters and any(p.grad is not None for p in self.parameters):
            self._collect()
        loss, sums = objective(self.model, batch, train=True)
        (loss / num_targets).backward()  # type: ignore[no-untyped-call]
        return {"loss_sum": loss.item(), **{name: value.item() for name, value in sums.items()}}

    @torch.no_grad()
    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The sums with `loss_sum`, without a gradient."""
        loss, sums = objective(self.model, batch, train=False)
        return {"loss_sum": loss.item(), **{name: value.item() for name, value in sums.items()}}

    def _collect(self) -> None:
        """Move bf16 gradients onto the fp32 copies."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> StepOutcome:
        """Clip, and change the weights; nothing changes if the gradient is not finite."""
        if self.masters is not self.parameters:
            self._collect()
        grads = [p.grad for p in self.masters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads])).item()
        applied = norm == norm and norm != float("inf")
        if applied:
            if 0 < self.max_grad_norm < norm:
                torch._foreach_mul_(grads, self.max_grad_norm / norm)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self._cast()
        for master in self.masters:
            master.grad = None
        return StepOutcome(norm, applied)

    def _cast(self) -> None:
        if self.masters is not self.parameters:
            torch._foreach_copy_(list[Tensor](self.parameters), list[Tensor](self.masters))

    def state(self) -> dict[str, Any]:
        """Weights and optimiser state by parameter name."""
        named = list(zip(self.names, self.masters, strict=True))
        return {
            "model": {name: master.detach() for name, master in named},
            "optimizer": {name: dict(self.optimizer.state[master]) for name, master in named},
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`.

        Raises:
            CheckpointError: a weight is missing, has another shape, or is not of this model.
        """
        remedy = "resume with the model that the run began with"
        extra = sorted(state["model"].keys() - set(self.names))
        if extra:
            raise CheckpointError(f"{extra[0]} of the checkpoint is not in the model; {remedy}")
        for name, master in zip(self.names, self.masters, strict=True):
            found = state["model"].get(name)
            if found is None or found.shape != master.shape:
                shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise CheckpointError(
                    f"{name} is {shape} in the checkpoint, expected {tuple(master.shape)}; {remedy}"
                )
            master.copy_(found)
            values = state.get("optimizer", {}).get(name, {})
            if values:
                self.optimizer.state[master] = {
                    key: value.clone() if isinstance(value, Tensor) else value
                    for key, value in values.items()
                }
        self._cast()

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by parameter name."""
        return {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)}
