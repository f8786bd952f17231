"""Nested dicts of tensors and numbers as flat ones, and what of a tensor lies on this rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["flatten", "local_part", "number_types", "restore_numbers", "unflatten"]

_SEPARATOR = "/"


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Every leaf by its path; numbers become tensors without a dimension.

    Args:
        tree: nested dicts of tensors and numbers.
        prefix: put in front of every path.
    """
    flat: dict[str, Tensor] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}{_SEPARATOR}")
            continue
        assert isinstance(value, Tensor | bool | int | float), (
            f"{prefix}{name} is a {type(value).__name__}; a checkpoint holds tensors and numbers"
        )
        # Python's numbers lose nothing in 64 bits.
        wide = torch.float64 if isinstance(value, float) else None
        flat[prefix + name] = value if isinstance(value, Tensor) else torch.tensor(value, dtype=wide)
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Undo `flatten`, but for numbers."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        *parents, name = path.split(_SEPARATOR)
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def number_types(tree: dict[str, Any], prefix: str = "") -> dict[str, type]:
    """Which leaves are Python's numbers, by path."""
    found: dict[str, type] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= number_types(value, f"{prefix}{name}{_SEPARATOR}")
        elif not isinstance(value, Tensor):
            found[prefix + name] = type(value)
    return found


def restore_numbers(flat: dict[str, Tensor], types: dict[str, type]) -> dict[str, Any]:
    """Turn tensors back into the numbers that `number_types` found."""
    return {name: types[name](value.item()) if name in types else value for name, value in flat.items()}


def local_part(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor; the whole of one that is not sharded."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
