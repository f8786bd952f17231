"""Copies of tensors on the CPU, so that training may go on while they are written.

A rank copies only what it will write. The buffers stay and are used again: a run pays for them once,
with as much CPU memory as its part of a checkpoint is large. Buffers of tensors on a GPU are pinned,
and all copies run together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Staging"]


class Staging:
    """Buffers by name."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors into buffers; those of names that are no longer given are freed.

        Args:
            tensors: by name, on any device.

        Returns:
            The copies, on the CPU; they hold until the next call.
        """
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        devices = set()
        for name, tensor in tensors.items():
            self._buffers[name].copy_(tensor, non_blocking=tensor.is_cuda)
            if tensor.is_cuda:
                devices.add(tensor.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return dict(self._buffers)

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        found = self._buffers.get(name)
        if found is not None and found.shape == tensor.shape and found.dtype == tensor.dtype:
            return found
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
