"""Keep large buffers instead of returning them to the system after every operation.

The C library of Linux asks the kernel for fresh pages at each allocation above a threshold and
gives them back at once. A training step allocates hundreds of such buffers, and touching fresh
pages costs more than the arithmetic on them. Two settings of glibc make it reuse its own heap.
Cost: the process keeps its highest memory until it ends. Other C libraries are left alone.

The heap is also grown once, without touching it, and the kernel is asked to back that part with huge
pages, of which there are 512 times fewer to look up. That lasts as long as the heap does not shrink.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_large_buffers", "release_unused_pages"]

# Parameter numbers of mallopt(3), from malloc.h of glibc, and the advice of madvise(2).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER_TRIM = -1  # the largest size that there is
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20


def keep_large_buffers() -> bool:
    """Tell glibc to serve large buffers from its heap and never to shrink it.

    Returns:
        Whether the settings were accepted; False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return False
    accepted = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
    if accepted:
        _ask_for_huge_pages()
    return accepted


def release_unused_pages() -> None:
    """Give back the pages of holes in the heap; what is needed again is fetched again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        # The end of the heap stays, which the kernel was asked to back with huge pages.
        trim.argtypes = [ctypes.c_size_t]
        trim(sys.maxsize)


@cache
def _ask_for_huge_pages() -> None:
    """Grow the heap by half of the memory; what is not touched costs nothing. Refusals do no harm."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    start = libc.malloc(size)
    if start:
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(first, (start + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(start)
