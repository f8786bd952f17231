"""What this machine is and what a process may use of it: processor, memory, disk, libraries.

Everything is read from the system's own files, so it costs milliseconds and works without torch;
only the list of GPUs asks torch, and only when asked for. A fact that a system does not tell is
None or False, never an error. Limits of containers (cgroups) count: a process on a 64-core machine
that may use two cores has two cores.

`root` is the top of the file system, for tests.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "available_cores",
    "available_memory_bytes",
    "cpu_flags",
    "current_memory_bytes",
    "describe_machine",
    "free_disk_bytes",
    "library_versions",
    "native_bf16",
    "peak_memory_bytes",
]

_ROOT = Path("/")
# Our names for what speeds up training and int8 inference, and how Linux and macOS spell them.
_FLAGS = {
    "avx2": ("avx2",),
    "avx512f": ("avx512f",),
    "avx512_bf16": ("avx512_bf16",),
    "avx512_vnni": ("avx512_vnni",),
    "avx_vnni": ("avx_vnni",),
    "amx_bf16": ("amx_bf16",),
    "amx_int8": ("amx_int8",),
    "neon": ("asimd", "hw.optional.neon"),
    "neon_bf16": ("bf16", "hw.optional.arm.feat_bf16"),
    "neon_i8mm": ("i8mm", "hw.optional.arm.feat_i8mm"),
    "sve": ("sve",),
}
_NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "neon_bf16")
# A cgroup of the first version says "no limit" with a number near 2**63.
_NO_LIMIT = 1 << 60


def describe_machine(*, with_gpus: bool = True) -> dict[str, Any]:
    """Describe the machine in plain values, ready for JSON.

    Args:
        with_gpus: ask torch for GPUs, which imports it (seconds); without, "gpus" is empty.

    Returns:
        "cpu" (its name), "cores" and "memory_bytes" (that this process may use), "flags" (names of
        instruction sets and whether they are there), "native_bf16", "gpus" (each with "name" and
        "memory_bytes"), "python", "platform".
    """
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "memory_bytes": available_memory_bytes(),
        "flags": cpu_flags(),
        "native_bf16": native_bf16(),
        "gpus": _gpus() if with_gpus else [],
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def cpu_flags(root: Path = _ROOT) -> dict[str, bool]:
    """Whether the processor has each of the instruction sets that matter here."""
    found = _raw_flags(root)
    return {name: any(spelling in found for spelling in spellings) for name, spellings in _FLAGS.items()}


def native_bf16(root: Path = _ROOT) -> bool:
    """Whether the processor multiplies bf16 numbers itself; if not, bf16 is slower than fp32."""
    flags = cpu_flags(root)
    return any(flags[name] for name in _NATIVE_BF16)


def available_cores(root: Path = _ROOT) -> int:
    """Cores that this process may use: its affinity, cut to the limit of its container."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    limits = [limit for folder in _cgroup_folders("cpu", root) if (limit := _core_limit(folder))]
    return min([cores, *limits])


def available_memory_bytes(root: Path = _ROOT) -> int | None:
    """Memory that this process may use: that of the machine, cut to the limit of its container."""
    amounts = [_total_memory_bytes(root)]
    for folder in _cgroup_folders("memory", root):
        amounts += [_read_number(folder / name) for name in ("memory.max", "memory.limit_in_bytes")]
    return min((amount for amount in amounts if amount and amount < _NO_LIMIT), default=None)


def peak_memory_bytes(root: Path = _ROOT) -> int:
    """The most memory that this process has held so far, without its children; 0 if unknown."""
    # Linux hands the parent's ru_maxrss on to a program it starts, so the kernel's own record of
    # the new program comes first.
    for line in _lines(root / "proc" / "self" / "status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def current_memory_bytes(root: Path = _ROOT) -> int:
    """Memory that this process holds now; its peak where the system does not tell; 0 if unknown."""
    for line in _lines(root / "proc" / "self" / "statm"):
        return int(line.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kibibytes = _run("ps", "-o", "rss=", "-p", str(os.getpid())).strip()
    return int(kibibytes) * 1024 if kibibytes.isdigit() else peak_memory_bytes(root)


def library_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Versions of installed distributions by name, None for those that are not; imports nothing."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def free_disk_bytes(path: str | Path) -> int | None:
    """Free space where a path is or will be; None where the system does not tell."""
    folder = Path(path).absolute()
    for candidate in (folder, *folder.parents):
        try:
            return shutil.disk_usage(candidate).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _raw_flags(root: Path) -> set[str]:
    # x86 says "flags", ARM says "Features"; the first core speaks for all.
    for line in _lines(root / "proc" / "cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    if sys.platform != "darwin":
        return set()
    listing = _run("sysctl", "machdep.cpu", "hw.optional").lower()
    found = set()
    for line in listing.splitlines():
        key, _, value = line.partition(":")
        if key.startswith("hw.optional."):
            found |= {key, key.removeprefix("hw.optional.")} if value.strip() == "1" else set()
        elif key.endswith("features"):
            found |= set(value.split())
    return found


def _cpu_name(root: Path = _ROOT) -> str:
    for line in _lines(root / "proc" / "cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return " ".join(value.split())
    if sys.platform == "darwin" and (name := _run("sysctl", "-n", "machdep.cpu.brand_string").strip()):
        return name
    return platform.processor() or platform.machine() or "unknown"


def _gpus() -> list[dict[str, Any]]:
    """GPUs that torch can use; none where torch is missing, broken, or built without them."""
    if importlib.util.find_spec("torch") is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver is told by an empty list
        try:
            torch = importlib.import_module("torch")
            found = [
                {"name": properties.name, "memory_bytes": int(properties.total_memory)}
                for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
            ]
            if torch.backends.mps.is_available():
                found.append({"name": "Apple GPU (MPS)", "memory_bytes": None})
        except (ImportError, OSError, RuntimeError, AssertionError):
            return []
    return found


def _total_memory_bytes(root: Path) -> int | None:
    for line in _lines(root / "proc" / "meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _cgroup_folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders that may hold a limit of a controller: the group of this process and those above it."""
    top = root / "sys" / "fs" / "cgroup"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, separator, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not separator or (controllers and controller not in controllers.split(",")):
            continue
        # The second version has one tree and names no controller; the first has a tree for each.
        base = top if not controllers else top / controller
        folder = base / group.strip("/")
        while folder != base:
            yield folder
            folder = folder.parent
        yield base


def _core_limit(folder: Path) -> int | None:
    """Cores that a group may keep busy, rounded up; None without a limit."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        quota, period = int(words[0]), int(words[1])
    else:
        quota = _read_number(folder / "cpu.cfs_quota_us") or 0
        period = _read_number(folder / "cpu.cfs_period_us") or 0
    return -(-quota // period) if quota > 0 and period > 0 else None


def _read_number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None  # "max" and "-1" mean no limit


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _run(*command: str) -> str:
    """What a small program of the system prints; nothing where it is missing or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout
