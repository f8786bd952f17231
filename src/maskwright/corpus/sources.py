"""From what a user names (a file, a folder, a pattern, a list) to a sorted list of files.

Folders are walked in name order; hidden files and folders are left out, and a folder reached a
second time through a link is not walked again, so loops of links end. The same holds for remote
storage, except that a web server can only be asked for single files. Cost: one directory scan and
one look at each file; for storage, its listing.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from ..core.errors import DataError
from ..core.files import is_remote
from .remote import list_remote, remote_path

__all__ = ["SourceFile", "Span", "file_version", "find_files", "source_name"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a file that is read by itself.

    Args:
        start: first byte; lines that begin in `[start, stop)` belong to the span, and the last of
            them is read to its end. In formats made of row groups, the first group.
        stop: the byte, or group, after the last.
        first_line: number, from 1, of the first line that begins in the span.
    """

    start: int
    stop: int
    first_line: int = 1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Args:
        path: where it is, as the user wrote it; used in messages. Remote files have a string here.
        label: its path below the source's folder, with `/`; used in document ids, so that they do
            not depend on the machine.
        named: the user named this very file, rather than a folder that holds it.
        num_bytes: its size as it is stored; None if unknown.
        version: changes when the content does, and costs no reading; empty if unknown.
        span: the part to read; None for the whole file.
    """

    path: Path | str
    label: str
    named: bool = True
    num_bytes: int | None = None
    version: str = ""
    span: Span | None = None


def find_files(paths: Sequence[str]) -> list[SourceFile]:
    """List the files behind paths, folders and patterns (`*`, `?`, `[...]`, `**`), local and remote.

    Args:
        paths: as the user wrote them. A local path that exists is never read as a pattern.

    Returns:
        Files in the order given, each entry's own files sorted by name; each file once.

    Raises:
        DataError: an entry leads to no file, a folder cannot be listed, or a storage cannot be reached.
        MissingDependencyError: the package for a storage is not installed.
    """
    found: dict[Path | str, SourceFile] = {}
    remote_folders = []
    for text in paths:
        if is_remote(text):
            folder, matches = _list_remote(text)
            remote_folders.append(folder)
        else:
            matches = [_local_file(path, named) for path, named in _expand(text)]
        if not matches:
            kind = (
                "the pattern matches" if _has_magic(text) and not Path(text).is_dir() else "the folder holds"
            )
            raise DataError(f"{text}: {kind} no files; check the path")
        for file in matches:
            found.setdefault(file.path, file)
    labels = _local_labels(paths, [path for path in found if isinstance(path, Path)])
    folder = remote_folders[0] if len(paths) == 1 and remote_folders else ""
    labels.update(_remote_labels(folder, [path for path in found if isinstance(path, str)]))
    files = [replace(file, label=labels[path]) for path, file in found.items()]
    counts = Counter(file.label for file in files)
    return [
        replace(file, label=str(file.path)) if counts[file.label] > 1 and isinstance(file.path, str) else file
        for file in files
    ]


def source_name(paths: Sequence[str]) -> str:
    """A short name for a source: the first path's last part up to its first dot."""
    parts = [part for part in Path(remote_path(paths[0])).parts if not _has_magic(part)]
    name = Path(parts[-1]).name if parts else ""
    return name.split(".")[0] or name or "source"


def file_version(status: os.stat_result) -> str:
    """Name the content of a local file by its size and its time; empty for pipes and devices."""
    return f"{status.st_size}-{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _local_file(path: Path, named: bool) -> SourceFile:
    try:
        status = path.stat()
    except OSError:  # such as a dangling link: an error when it is opened
        return SourceFile(path, "", named)
    version = file_version(status)
    return SourceFile(path, "", named, status.st_size if version else None, version)


def _list_remote(text: str) -> tuple[str, list[SourceFile]]:
    """The folder that was named, if one was, and its files."""
    entries = list_remote(text, _matches)
    named = not any(entry.folder for entry in entries)
    files = [
        SourceFile(entry.address, "", named, entry.stat.num_bytes, entry.stat.version) for entry in entries
    ]
    return (entries[0].folder if entries else ""), files


def _expand(text: str) -> Iterator[tuple[Path, bool]]:
    path = Path(text)
    if path.is_dir():
        for item in _walk(path, set()):
            yield item, False
    elif path.exists() or not _has_magic(text):
        if not path.exists():
            raise DataError(f"{text}: no such file or folder; check the path")
        yield path, True
    else:
        for item in _match(path):
            yield item, True


def _walk(folder: Path, seen: set[tuple[int, int]], depth: int | None = None) -> Iterator[Path]:
    """Files below a folder in name order; `seen` holds device and inode of folders walked already."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth != 1:
                yield from _walk(entry, seen, depth and depth - 1)
        elif entry.is_file() or entry.is_symlink():  # a dangling link is an error when it is opened
            yield entry


def _match(pattern: Path) -> Iterator[Path]:
    """Files that match a pattern, by our own walk, because `glob` follows loops of links."""
    fixed = next(number for number, part in enumerate(pattern.parts) if _has_magic(part))
    base, rest = Path(*pattern.parts[:fixed]), pattern.parts[fixed:]
    if base.is_dir():
        for path in _walk(base, set(), None if "**" in rest else len(rest)):
            if _matches(path.relative_to(base).parts, rest):
                yield path


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _has_magic(text: str) -> bool:
    return glob.has_magic(text)


def _local_labels(given: Sequence[str], files: list[Path]) -> dict[Path | str, str]:
    """Paths below the one folder that was given, or else below what all files share."""
    if not files:
        return {}
    if len(given) == 1 and Path(given[0]).is_dir():
        root = given[0]
    else:
        # Links stay as they are, or labels would depend on where the files really lie.
        root = os.path.commonpath([os.path.abspath(path.parent) for path in files])  # noqa: PTH100
    return {path: Path(os.path.relpath(path, root)).as_posix() for path in files}


def _remote_labels(folder: str, addresses: list[str]) -> dict[Path | str, str]:
    """As for local files; where addresses share nothing, each is its own label."""
    parts = {address: remote_path(address).split("/") for address in addresses}
    if folder:
        shared = len(folder.rstrip("/").split("/"))
    else:
        columns = zip(*[names[:-1] for names in parts.values()], strict=False)
        shared = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    return {address: "/".join(names[shared:]) for address, names in parts.items()}
