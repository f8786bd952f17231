"""A heap that is kept is backed by huge pages, also after holes in it were given back."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import ctypes
from maskwright.core.allocator import keep_large_buffers, release_unused_pages

print(keep_large_buffers())
release_unused_pages()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
ctypes.memset(libc.malloc(64 << 20), 1, 64 << 20)
with open("/proc/self/smaps_rollup") as file:
    print([line.split()[1] for line in file if line.startswith("AnonHugePages")][0])
"""


@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="this kernel gives no huge pages"
)
def test_large_buffers_lie_in_huge_pages():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    accepted, kilobytes = ended.stdout.split()
    if accepted == "False":
        pytest.skip("the C library takes no such settings")
    assert int(kilobytes) >= 48 << 10
