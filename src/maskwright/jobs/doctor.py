"""What this machine offers, what is slow or missing, and what to do about it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.machine import describe_machine, free_disk_bytes, library_versions

__all__ = ["examine"]

LIBRARIES = {
    "torch": ("train", "pretrain and fine-tune"),
    "safetensors": ("train", "write models"),
    "sklearn": ("train", "compute some metrics"),
    "tensorboard": ("train", "write TensorBoard events"),
    "transformers": ("hf", "check exports against Hugging Face"),
    "gigatoken": ("", "encode text fast"),
    "tokenizers": ("", "train tokenizers"),
}
LOW_DISK_BYTES = 5 << 30
LOW_MEMORY_BYTES = 4 << 30


def examine(folder: Path) -> dict[str, Any]:
    """Look at the machine and the environment.

    Args:
        folder: where work would be written; its disk is measured.

    Returns:
        `machine`, `versions`, `free_disk_bytes`, and `advice`: a list of `{"level", "what",
        "remedy"}` where level is ok, slow or missing.
    """
    machine = describe_machine()
    free = free_disk_bytes(folder)
    advice = [*_arithmetic(machine), *_libraries(), *_room(machine, free)]
    names = ("maskwright", "numpy", *(name for name in LIBRARIES if name != "sklearn"), "scikit-learn")
    return {
        "machine": machine,
        "versions": library_versions(names),
        "free_disk_bytes": free,
        "advice": advice,
    }


def _line(level: str, what: str, remedy: str = "") -> dict[str, str]:
    return {"level": level, "what": what, "remedy": remedy}


def _arithmetic(machine: dict[str, Any]) -> list[dict[str, str]]:
    lines = []
    gpus, flags = machine.get("gpus") or [], machine.get("flags") or {}
    if gpus:
        lines.append(_line("ok", f"{len(gpus)} GPU: {gpus[0]}"))
    else:
        lines.append(_line("slow", "no CUDA device", "fine for small models; for base and up use a GPU"))
    if any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "neon_bf16")):
        lines.append(_line("ok", "the processor multiplies bf16 natively"))
    else:
        lines.append(
            _line(
                "slow", "no native bf16 on this processor", "training takes fp32, about 3 to 5 times slower"
            )
        )
    if any(flags.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        lines.append(_line("ok", "the processor has VNNI, so int8 models are fast and exact"))
    else:
        lines.append(_line("slow", "no VNNI", "int8 models may lose accuracy here; serve fp32 or bf16"))
    if (machine.get("cores") or 1) < 2:
        lines.append(_line("slow", "one core", "preparing data uses every core it gets"))
    return lines


def _libraries() -> list[dict[str, str]]:
    lines = []
    for name, (extra, purpose) in LIBRARIES.items():
        if find_spec(name) is None:
            package = f"maskwright[{extra}]" if extra else "maskwright"
            lines.append(_line("missing", f"{name}, needed to {purpose}", f"pip install '{package}'"))
    if shutil.which("nvidia-smi") and find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            lines.append(
                _line("slow", "a GPU is here but torch cannot use it", "install a CUDA build of torch")
            )
    return lines


def _room(machine: dict[str, Any], free: int | None) -> list[dict[str, str]]:
    lines = []
    if free is not None and free < LOW_DISK_BYTES:
        lines.append(
            _line("slow", f"{free / 1e9:.1f} GB of disk left", "free some space or choose another --output")
        )
    memory = machine.get("memory_bytes") or 0
    if 0 < memory < LOW_MEMORY_BYTES:
        lines.append(
            _line("slow", f"{memory / 1e9:.1f} GB of memory", "take the small model and few micro_sequences")
        )
    return lines
