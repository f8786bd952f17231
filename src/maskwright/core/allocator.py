"""Keep large buffers instead of returning them to the system after every operation.

The C library of Linux asks the kernel for fresh pages at each allocation above a threshold and
gives them back at once. A training step allocates hundreds of such buffers, and touching fresh
pages costs more than the arithmetic on them. Two settings of glibc make it reuse its own heap.
Cost: the process keeps its highest memory until it ends. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_large_buffers"]

# Parameter numbers of mallopt(3), from malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER_TRIM = 2**31 - 1


def keep_large_buffers() -> bool:
    """Tell glibc to serve large buffers from its heap and never to shrink it.

    Returns:
        Whether the settings were accepted; False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
