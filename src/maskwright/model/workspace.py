"""Memory on the CPU that stays from step to step, and is handed out piece by piece.

A heap that keeps its memory becomes full of holes in a training step: blocks of many sizes come and
go, and the largest rarely fit where others left. What a step holds for long lies here instead: what
layers keep for the backward pass, the gradients of their matrices, the logits, the gradient of the
word table. The gradients of a layer take the place of what the layer above it kept, which is no
longer needed by then. Cost: some bookkeeping in Python, a few microseconds a piece.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["Workspace", "empty", "piece_of", "users_of"]

# Pieces begin at multiples of so many values, which suits every vector unit.
_ALIGNMENT = 64


class Workspace:
    """One buffer, handed out from its beginning whenever nobody holds any of it."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._idle_users = self._taken = 0

    def reserve(self, size: int, dtype: torch.dtype) -> None:
        """Make room, unless something of the buffer is still in use.

        Args:
            size: values that will be taken at most.
            dtype: of the values.
        """
        buffer = self._buffer
        if self._is_busy() or (buffer is not None and buffer.dtype == dtype and buffer.numel() >= size):
            return
        self._buffer = buffer = None  # first free, then allocate
        self._buffer = torch.empty(size, dtype=dtype)
        self._idle_users = users_of(self._buffer)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with undefined content.

        Args:
            shape: of the tensor.
            dtype: of the tensor.

        Returns:
            A piece of the buffer behind those in use; fresh memory where there is no room.
        """
        if not self._is_busy():
            self._taken = 0
        buffer, size = self._buffer, math.prod(shape)
        if buffer is None or buffer.dtype != dtype or self._taken + size > buffer.numel():
            return torch.empty(shape, dtype=dtype)
        piece = piece_of(buffer, self._taken, shape)
        self._taken += -(-size // _ALIGNMENT) * _ALIGNMENT
        return piece

    def _is_busy(self) -> bool:
        return self._buffer is not None and users_of(self._buffer) > self._idle_users

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspace:
        return Workspace()


def users_of(buffer: Tensor) -> int:
    """How many tensors hold the memory of a buffer, itself included."""
    storage: Any = buffer.untyped_storage()
    users: int = torch._C._storage_Use_Count(storage._cdata)
    return users


def piece_of(buffer: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """A part of a buffer that is no view of it: autograd sees nothing in common, and it alone is its user.

    Args:
        buffer: a vector.
        start: its value with which the piece begins.
        shape: of the piece.
    """
    empty: Any = torch.empty(0, dtype=buffer.dtype, device=buffer.device)
    piece: Tensor = empty.set_(buffer.untyped_storage(), start, shape)
    return piece


def empty(workspace: Workspace | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor with undefined content, from a workspace where there is one."""
    return torch.empty(shape, dtype=dtype) if workspace is None else workspace.take(shape, dtype)
