"""What the optimisers know of a parameter: its name and shape decide how it is updated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ...model.qkv import split_qkv
from ...parallel.gradient_norms import group_of

__all__ = ["chunks", "decays", "is_hidden_matrix", "joined_heads", "matrices_of", "parameter_groups"]

# Elements that are worked on at a time, so that temporary tensors stay small.
CHUNK_ELEMENTS = 1 << 24


def decays(parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and tables, not to biases and norms."""
    return parameter.dim() >= 2


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix inside a layer, neither embedding nor head."""
    return parameter.dim() == 2 and group_of(name) in ("attention", "feed_forward")


def joined_heads(name: str, num_heads: int | None) -> int:
    """The heads of a parameter that joins three matrices head by head (`model/qkv.py`); 0 for others.

    Args:
        name: of the parameter.
        num_heads: attention heads of a layer; None only where nothing is joined.
    """
    if not name.endswith("qkv.weight"):
        return 0
    assert num_heads is not None, f"{name} joins three matrices: give optimizer_factory num_heads"
    return num_heads


def matrices_of(tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Views of the matrices that a tensor is made of: itself, or queries, keys and values of shape (H, E, D).

    Args:
        tensor: a parameter, or anything of its shape.
        heads: from `joined_heads`.
    """
    return split_qkv(tensor, heads) if heads else (tensor,)


def parameter_groups(parameters: Iterable[tuple[nn.Parameter, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Gather parameters with the same settings.

    Args:
        parameters: each with its settings.

    Returns:
        Groups for `torch.optim.Optimizer`, in the order in which their settings first occur.
    """
    groups: list[tuple[dict[str, Any], list[nn.Parameter]]] = []
    for parameter, settings in parameters:
        for known, members in groups:
            if known == settings:
                members.append(parameter)
                break
        else:
            groups.append((settings, [parameter]))
    return [{"params": members, **settings} for settings, members in groups]


def chunks(tensors: Sequence[Tensor], sizes: Sequence[int] | None = None) -> Iterator[slice]:
    """Cut a list of tensors into runs of at most `CHUNK_ELEMENTS`, or one larger tensor.

    Args:
        tensors: what to cut.
        sizes: how large each counts; by default its elements.
    """
    sizes = [tensor.numel() for tensor in tensors] if sizes is None else sizes
    first, elements = 0, 0
    for number, size in enumerate(sizes):
        if number > first and elements + size > CHUNK_ELEMENTS:
            yield slice(first, number)
            first, elements = number, 0
        elements += size
    if first < len(sizes):
        yield slice(first, len(sizes))
