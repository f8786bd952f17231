"""Which device and precision a run uses, and how fast that device multiplies matrices."""

from __future__ import annotations

import time
from typing import Literal

import torch

from ..core.errors import ConfigError
from ..core.machine import native_bf16

__all__ = ["DeviceName", "Precision", "measure_matrix_peak", "resolve_device", "resolve_precision"]

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
_ROUNDS = 10


def resolve_device(name: DeviceName) -> str:
    """Turn `auto` into a device that is here.

    Raises:
        ConfigError: CUDA was asked for and is not here.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError('"device" is "cuda", but torch sees no CUDA device; set device=cpu')
    return "cuda" if has_cuda and name != "cpu" else "cpu"


def resolve_precision(name: Precision, device: str) -> Literal["fp32", "bf16"]:
    """Turn `auto` into bf16 where the device multiplies it natively, else fp32."""
    if name != "auto":
        return name
    native = torch.cuda.is_bf16_supported() if device == "cuda" else native_bf16()
    return "bf16" if native else "fp32"


def measure_matrix_peak(device: str, precision: str) -> float:
    """Best rate of a few large matrix products: the limit that a step is compared with.

    Args:
        device: where.
        precision: `fp32` or `bf16`.

    Returns:
        Floating-point operations a second. Takes well under a second.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, inner, columns = (8192, 8192, 8192) if device == "cuda" else (2048, 2048, 2048)
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    # Written to the same place each time: fresh memory would cost as much as the product.
    product = torch.empty(rows, columns, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(_ROUNDS):
        _wait(device)
        started = time.perf_counter()
        torch.mm(left, right.t(), out=product)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * rows * inner * columns / best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
