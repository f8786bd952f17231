"""Where the values of a layer lie on the CPU, and products written there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .workspace import Workspace, empty

__all__ = ["Memory", "gelu_into", "linear", "linear_into", "weight_gradient"]


class Memory(NamedTuple):
    """Workspaces of a layer.

    Attributes:
        kept: for what it keeps for the backward pass.
        gradients: for the gradients of its matrices; the workspace of what the layer above kept.
        scratch: for what is needed within one operation; all layers share it.
    """

    kept: Workspace
    gradients: Workspace
    scratch: Workspace


def linear(value_NI: Tensor, weight_OI: Tensor, bias_O: Tensor, memory: Memory | None) -> Tensor:
    """`F.linear` into what a layer keeps."""
    if memory is None:
        return F.linear(value_NI, weight_OI, bias_O)
    return linear_into(memory.kept, value_NI, weight_OI, bias_O)


def linear_into(space: Workspace | None, value_NI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """`F.linear` into a workspace."""
    out_NO = empty(space, (len(value_NI), len(weight_OI)), value_NI.dtype)
    return torch.addmm(bias_O, value_NI, weight_OI.t(), out=out_NO)


def gelu_into(space: Workspace | None, value: Tensor) -> Tensor:
    """`F.gelu` into a workspace."""
    out: Tensor = torch.ops.aten.gelu.out(value, out=empty(space, tuple(value.shape), value.dtype))
    return out


def weight_gradient(grad_NO: Tensor, value_NI: Tensor, memory: Memory | None) -> Tensor:
    """Gradient of the weight of a linear layer, (O, I)."""
    if memory is None:
        return grad_NO.t() @ value_NI
    out_OI = memory.gradients.take((grad_NO.shape[1], value_NI.shape[1]), value_NI.dtype)
    return torch.mm(grad_NO.t(), value_NI, out=out_OI)
