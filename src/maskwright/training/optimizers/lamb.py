"""LAMB: Adam whose step is scaled, matrix by matrix, to the size of what it changes.

With tens of thousands of sequences a step, the rate that Adam needs is too high for some matrices
and too low for others; a step in proportion to the matrix suits them all. Cost: the state of Adam,
two temporary tensors for a chunk of the weights, and two more norms of every tensor. Where parameters lie
in shards over ranks, the squares of the norms are added up in one exchange a step, and the updates wait for
it in the place of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...parallel.gradient_norms import accurate_norms
from .config import OptimizerConfig
from .parameters import chunks, decays, joined_heads, matrices_of, parameter_groups

if TYPE_CHECKING:
    from ...parallel.shards import Part, Shards

__all__ = ["Lamb", "make_lamb"]


class Lamb(torch.optim.Optimizer):
    """LAMB over parameter groups.

    Args:
        groups: each with `params`, `weight_decay`, `trust` (whether the step is scaled by the trust
            ratio) and `heads` (of tensors that join three matrices head by head, each of which has a
            ratio of its own; 0 for others).
        lr: learning rate until a group is given another.
        betas: decay of the mean of gradients and of their squares.
        eps: added to the root of the squared mean.
        shards: where parameters are shards over ranks; gradients are overwritten then.

    Source: You et al., "Large batch optimization for deep learning", ICLR 2020 (arXiv 1904.00962),
    algorithm 2 with both corrections of bias and φ(z) = z. The ratio is 1 where a norm is zero, or a
    tensor of zeros would stay one for ever.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        shards: Shards | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "trust": True, "heads": 0}
        super().__init__(groups, defaults)
        self._shards = shards

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every parameter that has a gradient; closures are not supported."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for part in chunks(parameters):
                self._update(parameters[part], group)
        if self._shards is not None:
            self._change_shards(self._shards)
        return None

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            # The count stays on the CPU: it is read at every step, and a device would be waited for.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _update(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        states = [self._state_of(parameter) for parameter in parameters]
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        steps = []
        for state in states:
            state["step"] += 1
            steps.append(float(state["step"]))
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, [1 - beta1**step for step in steps])
        torch._foreach_div_(updates, roots)
        if decay:
            torch._foreach_add_(updates, list(parameters), alpha=decay)
        if self._shards is not None:
            torch._foreach_copy_(grads, updates)
            return
        if group["trust"]:
            _scale(updates, parameters, group["heads"])
        torch._foreach_add_(list(parameters), updates, alpha=-group["lr"])

    def _change_shards(self, shards: Shards) -> None:
        """Change the weights by the updates in place of their gradients, once all ranks know the norms."""
        trusted = [
            (parameter, parameter.grad, group["heads"])
            for group in self.param_groups
            if group["trust"]
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        squares = [
            _squares(values, heads, shards.part(parameter))
            for parameter, update, heads in trusted
            for values in (update, parameter)
        ]
        if not trusted:  # on no rank, as all have the same parameters
            return self._change()
        totals = shards.add_up(torch.cat(squares)).sqrt()
        norms = iter(torch.split(totals, [len(part) for part in squares]))
        for parameter, update, heads in trusted:
            ratio = _ratios(next(norms), next(norms)).to(update.dtype)
            part = shards.part(parameter)
            update.mul_(ratio[_matrix_of_rows(update, heads, part)][:, None] if heads else ratio)
        return self._change()

    def _change(self) -> None:
        for group in self.param_groups:
            changed = [parameter for parameter in group["params"] if parameter.grad is not None]
            if changed:
                torch._foreach_add_(changed, [one.grad for one in changed], alpha=-group["lr"])


def _scale(updates: Sequence[Tensor], parameters: Sequence[Tensor], heads: int) -> None:
    """Multiply each update by the norm of its matrix over its own."""
    steps = [piece for update in updates for piece in matrices_of(update, heads)]
    weights = [piece for parameter in parameters for piece in matrices_of(parameter, heads)]
    ratios = _ratios(accurate_norms(steps), accurate_norms(weights))
    torch._foreach_mul_(steps, list(ratios.to(steps[0].dtype).unbind()))


def _ratios(step_norms: Tensor, weight_norms: Tensor) -> Tensor:
    return torch.where((step_norms > 0) & (weight_norms > 0), weight_norms / step_norms, 1.0)


def _matrix_of_rows(values: Tensor, heads: int, part: Part) -> Tensor:
    """Which of three matrices, joined head by head, each row of a shard is of."""
    width = part.shape[0] // (3 * heads)
    rows = torch.arange(part.first_row, part.first_row + len(values), device=values.device)
    return rows // width % 3


def _squares(values: Tensor, heads: int, part: Part) -> Tensor:
    """This rank's share of the squared norm of each matrix that a parameter is made of, float64."""
    if not heads:
        return accurate_norms([values]).square() / part.copies
    rows = torch.linalg.vector_norm(values, dim=1).double().square()
    found = torch.zeros(3, dtype=torch.float64, device=values.device)
    return found.index_add_(0, _matrix_of_rows(values, heads, part), rows) / part.copies


def make_lamb(
    config: OptimizerConfig,
    named: Iterable[tuple[str, nn.Parameter]],
    num_heads: int | None = None,
    shards: Shards | None = None,
) -> torch.optim.Optimizer:
    """LAMB over named parameters; biases and norms neither decay nor have a trust ratio."""
    groups = parameter_groups(
        (
            parameter,
            {"weight_decay": config.weight_decay, "trust": True, "heads": joined_heads(name, num_heads)}
            if decays(parameter)
            else {"weight_decay": 0.0, "trust": False, "heads": 0},
        )
        for name, parameter in named
    )
    return Lamb(groups, config.lr, (config.beta1, config.beta2), config.eps, shards)
