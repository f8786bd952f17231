"""Which device and precision a run uses, and how fast that device multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from ..core.errors import ConfigError
from ..core.machine import native_bf16

__all__ = [
    "DeviceName",
    "Precision",
    "measure_matrix_peak",
    "resolve_device",
    "resolve_precision",
    "set_tf32",
    "wait_for_device",
]

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ROUNDS = 10
# A GPU that rests runs at a fraction of its clock; it takes about so long to wake up.
_WARMUP_SECONDS = 0.2


def resolve_device(name: DeviceName) -> str:
    """Turn `auto` into a device that is here.

    Raises:
        ConfigError: CUDA was asked for and is not here.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError('"device" is "cuda", but torch sees no CUDA device; set device=cpu')
    return "cuda" if has_cuda and name != "cpu" else "cpu"


def resolve_precision(name: Precision, device: str) -> Literal["fp32", "bf16", "fp16"]:
    """Turn `auto` into bf16 where the device multiplies it natively, else fp32.

    fp16 is never chosen by itself: it needs loss scaling and may overflow. It is for GPUs without
    bf16 (before Ampere).
    """
    if name != "auto":
        return name
    # CUDA devices without bf16 units emulate it, slower than fp32.
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else native_bf16()
    return "bf16" if native else "fp32"


def set_tf32(enabled: bool) -> None:
    """Let CUDA devices round the factors of fp32 matrix products to 10 bits, for a multiple of the speed.

    For the whole process; the CPU is left as it is. Sums stay in fp32. It matters for `precision=fp32`
    only, and for the few fp32 products of other precisions.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high" if enabled else "highest")


def measure_matrix_peak(device: str, precision: str) -> float:
    """Best rate of a few large matrix products: the limit that a step is compared with.

    Args:
        device: where.
        precision: `fp32`, `bf16`, `fp16`, or on CUDA `fp8` (one scale a matrix).

    Returns:
        Floating-point operations a second. Takes well under a second.

    Raises:
        ConfigError: the precision is unknown, or the device cannot multiply it.
    """
    rows, inner, columns = (8192, 8192, 8192) if device == "cuda" else (2048, 2048, 2048)
    left = torch.randn(rows, inner, device=device)
    right = torch.randn(columns, inner, device=device)
    multiply = _product(left, right, precision)
    if device == "cuda":
        started = time.perf_counter()
        while time.perf_counter() - started < _WARMUP_SECONDS:
            multiply()
            wait_for_device(device)
    best = float("inf")
    for _ in range(_ROUNDS):
        wait_for_device(device)
        started = time.perf_counter()
        multiply()
        wait_for_device(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * rows * inner * columns / best


def _product(left: torch.Tensor, right: torch.Tensor, precision: str) -> Callable[[], Any]:
    """`left @ right.t()` in a precision, as something to call again and again."""
    if precision == "fp8":
        return _fp8_product(left, right)
    if precision not in _DTYPES:
        raise ConfigError(f'"precision" is {precision!r}, expected one of {", ".join([*_DTYPES, "fp8"])}')
    dtype = _DTYPES[precision]
    left, right = left.to(dtype), right.to(dtype)
    # Written to the same place each time: fresh memory would cost as much as the product.
    product = torch.empty(left.shape[0], right.shape[0], device=left.device, dtype=dtype)
    return lambda: torch.mm(left, right.t(), out=product)


def _fp8_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], Any]:
    if left.device.type != "cuda":
        raise ConfigError('"fp8" is true, but the device is the cpu, which cannot multiply it; set fp8=false')
    one = torch.ones((), device=left.device)
    narrow, wide = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()

    def multiply() -> torch.Tensor:
        # The operator behind `torch.nn.functional.scaled_mm`, in the form that 2.11 has too.
        return torch._scaled_mm(narrow, wide, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    return multiply


def wait_for_device(device: str) -> None:
    """Wait until everything that was asked of a device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
