"""Fields of a training record that the loop does not know of itself: memory and padding.

Reading them takes microseconds, but for a process on macOS, where the system's own tool is asked.
"""

from __future__ import annotations

from ...core.machine import current_memory_bytes, peak_memory_bytes
from .hook import Record

__all__ = ["memory_fields", "padding_share"]


def memory_fields(device: str) -> Record:
    """Memory of this process, and of its tensors on a GPU.

    Args:
        device: where the model is, as torch spells it.

    Returns:
        `memory_bytes` (now) and `memory_peak_bytes` (the most so far) of the process; on CUDA also
        `device_memory_bytes`, `device_memory_peak_bytes` (tensors) and `device_memory_reserved_bytes`
        (with what the allocator keeps for reuse, at its most).
    """
    fields: Record = {"memory_bytes": current_memory_bytes(), "memory_peak_bytes": peak_memory_bytes()}
    if device.startswith("cuda"):
        import torch

        fields |= {
            "device_memory_bytes": torch.cuda.memory_allocated(device),
            "device_memory_peak_bytes": torch.cuda.max_memory_allocated(device),
            "device_memory_reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    return fields


def padding_share(computed_tokens: float, real_tokens: float) -> float:
    """Share of the computed tokens that are padding; 0 where nothing was computed."""
    return 1 - real_tokens / computed_tokens if computed_tokens > 0 else 0.0
