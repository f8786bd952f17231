"""One job at a time in one folder.

The lock is a lock of the operating system on a file in the folder. It ends with its process,
however that ends, so there is nothing to clean up after a crash. Cost: one file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputExistsError
from .files import LOCK_NAME, storage_errors

__all__ = ["lock_folder"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # some network file systems


@contextlib.contextmanager
def lock_folder(folder: Path, *, shared: bool = False, name: str = LOCK_NAME) -> Iterator[None]:
    """Hold a folder for as long as the block runs.

    Args:
        folder: made if missing.
        shared: let others hold it too, as long as they also ask to share it.
        name: file name of the lock, for parts of the work that may be held one by one.

    Raises:
        OutputExistsError: another process holds it, or it is a file.
        StorageError: the storage refused.
    """
    try:
        import fcntl
    except ImportError:  # no such locks outside Unix; two jobs are then on their own
        yield
        return
    path = folder / name
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file, expected a folder; choose another output")
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(path):
                _acquire(handle, mode, folder)
            if not _is_at(handle, path):  # its last holder took the file away in between
                continue
            if not shared:
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            try:
                yield
            finally:
                if not shared:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def _acquire(handle: int, mode: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise OutputExistsError(
                f"{folder}: another maskwright job is writing here{_holder(handle)}; "
                "wait for it, stop it, or choose another folder"
            ) from None
        if error.errno not in _NO_LOCKS:
            raise


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    number = os.pread(handle, 32, 0).strip().decode("ascii", "replace")
    return f" (process {number})" if number.isdecimal() else ""
