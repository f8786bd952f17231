"""Muon for the matrices inside the layers, AdamW for everything else, as one optimiser.

A matrix moves by its mean gradient with all singular values brought near one, so that rare
directions are learned as fast as frequent ones. The framework's Muon takes whole parameters only;
here the three matrices of a joined query, key and value are three. Cost: four bytes of state for a
matrix entry instead of AdamW's eight, and fifteen products of each matrix a step. Where matrices lie in
shards over ranks, each is put together on one of them (`parallel/shards.py`), so the products are shared out.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with its
coefficients; Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2, for
weight decay and for updates as large as AdamW's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ...core.machine import native_bf16
from .config import OptimizerConfig
from .parameters import chunks, decays, is_hidden_matrix, joined_heads, matrices_of, parameter_groups

if TYPE_CHECKING:
    from ...parallel.shards import Shards

__all__ = ["Muon", "make_muon", "orthogonalize", "update_scale"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_EPS = 1e-7


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices near one, roughly between 0.7 and 1.2.

    Args:
        matrices: (B, rows, columns), in the type to compute in.

    Returns:
        Tensor of the same shape and type; zero matrices stay zero.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    # The products are square in the shorter side.
    x = matrices.mT if tall else matrices
    # No singular value is larger than this norm, and up to one the iteration cannot diverge.
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_EPS)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def update_scale(rows: int, columns: int, kind: str) -> float:
    """What an update of singular values near one is multiplied by.

    Args:
        rows: outputs of the matrix.
        columns: its inputs.
        kind: `match_rms_adamw` or `original`, as the framework names them.
    """
    if kind == "original":
        return math.sqrt(max(1.0, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


class Muon(torch.optim.Optimizer):
    """Muon over the groups that say `muon`, AdamW over the others.

    Args:
        groups: each with `params`, `weight_decay` and `muon`; those of Muon also with `lr_scale` and
            `heads`, of tensors that join three matrices head by head; 0 for others.
        lr: learning rate of AdamW; a group has this times its `lr_scale`.
        momentum: decay of the mean gradient of a matrix.
        betas: AdamW's decays of the mean of gradients and of their squares.
        eps: AdamW's, added to the root of the squared mean.
        scale: see `update_scale`.
        shards: where parameters are shards over ranks.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        scale: str,
        shards: Shards | None = None,
    ) -> None:
        # `fused` tells the framework where the counts of steps belong when it loads a state.
        defaults = {"lr": lr, "lr_scale": 1.0, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(groups, {**defaults, "scale": scale, "muon": False, "heads": 0, "fused": True})
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._cpu_dtype = torch.bfloat16 if native_bf16() else torch.float32
        self._shards = shards

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every parameter that has a gradient; closures are not supported."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["muon"]:
                self._adamw(parameters, group)
                continue
            for part in chunks(parameters, self._sizes(parameters)):
                self._muon(parameters[part], group)
        return None

    def _sizes(self, parameters: Sequence[nn.Parameter]) -> list[int] | None:
        """Where ranks have shards of other sizes, what all of them can cut by."""
        shards = self._shards
        return (
            None
            if shards is None
            else [math.prod(shards.part(one).shape) // shards.size for one in parameters]
        )

    def _adamw_state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _mean(self, parameter: Tensor) -> Tensor:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _adamw(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        states = [self._adamw_state(parameter) for parameter in parameters]
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, parameters: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, momentum = [self._mean(parameter) for parameter in parameters], group["momentum"]
        torch._foreach_lerp_(means, grads, 1 - momentum)
        # Nesterov's: the mean as it will be if the gradient stays.
        ahead = torch._foreach_lerp(grads, means, momentum)
        torch._foreach_mul_(list(parameters), 1 - group["lr"] * group["weight_decay"])
        heads = group["heads"]
        if self._shards is not None:
            self._muon_shards(parameters, ahead, group, self._shards)
            return
        for members, matrices in _stacks(ahead, heads, self._cpu_dtype):
            updates = orthogonalize(matrices)
            rate = group["lr"] * update_scale(updates.shape[1], updates.shape[2], group["scale"])
            views = [view for number in members for view in matrices_of(parameters[number], heads)]
            for view, update in zip(views, updates, strict=True):
                view.add_(update.reshape(view.shape), alpha=-rate)

    def _muon_shards(
        self,
        parameters: Sequence[nn.Parameter],
        ahead: Sequence[Tensor],
        group: dict[str, Any],
        shards: Shards,
    ) -> None:
        heads = group["heads"]
        dtype = self._cpu_dtype if shards.device == "cpu" else torch.bfloat16

        def update(matrix: Tensor) -> Tensor:
            ((_, matrices),) = _stacks([matrix], heads, dtype)
            result = torch.empty_like(matrix)
            for view, one in zip(matrices_of(result, heads), orthogonalize(matrices), strict=True):
                view.copy_(one.reshape(view.shape))
            return result

        updates = shards.transform(parameters, [values.to(dtype) for values in ahead], update)
        for parameter, one in zip(parameters, updates, strict=True):
            rows, columns = shards.part(parameter).shape
            rate = group["lr"] * update_scale(rows // 3 if heads else rows, columns, group["scale"])
            parameter.add_(one, alpha=-rate)


def _stacks(
    tensors: Sequence[Tensor], heads: int, cpu_dtype: torch.dtype
) -> Iterator[tuple[list[int], Tensor]]:
    """Matrices of one shape as (B, rows, columns) in the type to compute in, and whose they are."""
    if tensors[0].device.type == "cpu":
        # A core has nothing from several products at once, and needs more memory for them.
        stacks, dtype = [[number] for number in range(len(tensors))], cpu_dtype
    else:
        by_shape: dict[torch.Size, list[int]] = {}
        for number, tensor in enumerate(tensors):
            by_shape.setdefault(tensor.shape, []).append(number)
        stacks, dtype = list(by_shape.values()), torch.bfloat16
    for members in stacks:
        views = [view for number in members for view in matrices_of(tensors[number].to(dtype), heads)]
        yield members, torch.stack(views).view(len(views), -1, tensors[members[0]].shape[1])


def make_muon(
    config: OptimizerConfig,
    named: Iterable[tuple[str, nn.Parameter]],
    num_heads: int | None = None,
    shards: Shards | None = None,
) -> torch.optim.Optimizer:
    """Muon over hidden matrices, AdamW over the rest; biases and norms do not decay."""
    lr_scale = 1.0 if config.muon_lr is None else config.muon_lr / config.lr
    groups = parameter_groups(
        (
            parameter,
            {
                "weight_decay": config.weight_decay,
                "muon": True,
                "heads": joined_heads(name, num_heads),
                "lr_scale": lr_scale,
            }
            if is_hidden_matrix(name, parameter)
            else {"weight_decay": config.weight_decay if decays(parameter) else 0.0, "muon": False},
        )
        for name, parameter in named
    )
    return Muon(
        groups,
        config.lr,
        momentum=config.muon_momentum,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        scale=config.muon_scale,
        shards=shards,
    )
