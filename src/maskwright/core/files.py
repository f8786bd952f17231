"""Files that are either whole or absent, here or on any storage that `fsspec` knows.

A write goes to a temporary name beside the target, is flushed to the device, and is renamed over
the target in one step. A reader therefore never sees half a file, whatever died in between.
Operating-system refusals (disk full, no permission) become `StorageError` with the path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError, DataError, OutputExistsError, StorageError

__all__ = [
    "atomic_open",
    "prepare_output",
    "publish_folder",
    "read_bytes",
    "read_json",
    "storage_errors",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

TEMPORARY_MARK = ".partial-"
OURS_MARK = "config.yaml"
LOCK_NAME = ".lock"

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder, then run the same command again",
    errno.EDQUOT: "the quota is used up: free some space, then run the same command again",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EIO: "the device reported a fault: check it, then run the same command again",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "something with this name is in the way: choose another name or remove it",
    errno.EISDIR: "a folder has this name: choose another name or remove it",
    errno.ENOTEMPTY: "a folder with content has this name: choose another name or remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a symbolic link leads back to itself: remove it or choose another name",
    errno.EXDEV: "both places must lie on one file system: choose another folder",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.EFBIG: "the file system does not hold files of this size: choose another folder",
}


@contextlib.contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn refusals of the storage inside the block into `StorageError` with path and remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        reason = os.strerror(error.errno or 0)
        raise StorageError(f"{_place(path, error)}: {reason}; {_REMEDIES[error.errno or 0]}") from error


def _place(path: str | Path, error: OSError) -> str | Path:
    """The path to blame: the one the error names when it is unrelated to the target."""
    named = error.filename
    if not isinstance(named, str) or error.filename2 is not None or TEMPORARY_MARK in named:
        return path  # no name, a rename onto the target, or the temporary file beside it
    related = Path(named) == Path(path) or Path(named) in Path(path).parents
    return path if related else named


def is_remote(path: str | Path) -> bool:
    """Whether a path names another storage (`s3://...`) rather than a local file."""
    return "://" in str(path)


@contextlib.contextmanager
def atomic_open(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for binary writing that appears under its name only when the block succeeds.

    Args:
        path: local path or any `fsspec` address. Missing local folders are made.

    Yields:
        A binary file. If the block raises, nothing appears and the temporary file is removed.

    Raises:
        StorageError: the storage refused.
    """
    opener = _atomic_open_remote if is_remote(path) else _atomic_open_local
    with storage_errors(path), opener(str(path)) as file:
        yield file


@contextlib.contextmanager
def _atomic_open_local(path: str) -> Iterator[IO[bytes]]:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _atomic_open_remote(path: str) -> Iterator[IO[bytes]]:
    import fsspec

    try:
        filesystem, name = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise StorageError(f"{path}: cannot be reached ({error}); check the address") from error
    temporary = f"{name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}"
    filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
    try:
        with filesystem.open(temporary, "wb") as file:
            yield file
        filesystem.mv(temporary, name)
    except BaseException:
        if filesystem.exists(temporary):
            filesystem.rm(temporary)
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the device, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def publish_folder(temporary: Path, target: Path) -> None:
    """Flush a finished folder and rename it to its final name in one step.

    Args:
        temporary: a folder on the same file system as `target`.
        target: must not exist.

    Raises:
        StorageError: the storage refused.
    """
    with storage_errors(target):
        for path in sorted(temporary.rglob("*")):
            if path.is_dir():
                sync_folder(path)
                continue
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file atomically. Raises `StorageError` where the storage refuses."""
    with atomic_open(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises `StorageError` where the storage refuses."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; keys keep their order."""
    try:
        data = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a file name or escaped in JSON
        data = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False).encode()
    write_bytes(path, data + b"\n")


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file from here or any `fsspec` address.

    Raises:
        DataError: it does not exist, is a folder, or cannot be read.
    """
    try:
        if not is_remote(path):
            return Path(path).read_bytes()
        import fsspec

        with fsspec.open(str(path), "rb") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError, ImportError) as error:  # also an unknown or uninstalled protocol
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check the path") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is missing, unreadable or not JSON; the message says where it breaks.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise DataError(f"{path}: is not valid JSON ({error})") from error


def prepare_output(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make an output folder, and refuse to mix new work with old unless told how.

    Args:
        folder: where the work will be written.
        resume: go on with what is there.
        overwrite: remove what is there first. Only folders that hold work of Maskwright (marked
            by a `config.yaml`) are removed.

    Raises:
        ConfigError: both `resume` and `overwrite` were asked for.
        OutputExistsError: the folder is not empty and neither was asked for, or it is a file, or
            `overwrite` was asked for a folder that Maskwright did not make.
        StorageError: the storage refused.
    """
    if resume and overwrite:
        raise ConfigError(f"{folder}: --resume and --overwrite contradict each other; give only one")
    with storage_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{folder}: is a file, expected a folder; choose another output")
        occupied = folder.is_dir() and any(child.name != LOCK_NAME for child in folder.iterdir())
    if occupied and overwrite:
        if not (folder / OURS_MARK).exists():
            raise OutputExistsError(
                f"{folder}: has no config.yaml, so it may not be ours to overwrite; "
                "remove it yourself or choose another output"
            )
        _empty_folder(folder)
    elif occupied and not resume:
        raise OutputExistsError(
            f"{folder}: is not empty; add --resume to go on, --overwrite to start again, "
            "or choose another folder with --output"
        )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _empty_folder(folder: Path) -> None:
    """Remove what a folder holds, the mark that it is ours last, so that a rerun may go on."""
    with storage_errors(folder):
        for child in sorted(folder.iterdir(), key=lambda path: path.name == OURS_MARK):
            if child.name == LOCK_NAME:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
