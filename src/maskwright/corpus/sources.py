"""From what a user names (a file, a folder, a pattern, a list) to a sorted list of files.

Folders are walked in name order; hidden files and folders are left out, and a folder reached a
second time through a link is not walked again, so loops of links end. Cost: one directory scan.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..core.errors import DataError

__all__ = ["SourceFile", "find_files", "source_name"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    Args:
        path: where it is, as the user wrote it; used in messages.
        label: its path below the source's folder, with `/`; used in document ids, so that they do
            not depend on the machine.
        named: the user named this very file, rather than a folder that holds it.
    """

    path: Path
    label: str
    named: bool = True


def find_files(paths: Sequence[str]) -> list[SourceFile]:
    """List the files behind paths, folders and patterns (`*`, `?`, `[...]`, `**`).

    Args:
        paths: as the user wrote them. A path that exists is never read as a pattern.

    Returns:
        Files in the order given, each entry's own files sorted by name; each file once.

    Raises:
        DataError: an entry leads to no file, a folder cannot be listed, or it is on remote storage.
    """
    found: dict[Path, bool] = {}
    for text in paths:
        matches = list(_expand(text))
        if not matches:
            kind = "the folder holds" if Path(text).is_dir() else "the pattern matches"
            raise DataError(f"{text}: {kind} no files; check the path")
        for path, named in matches:
            found.setdefault(path, named)
    root = _common_folder(paths, list(found))
    return [
        SourceFile(path, Path(os.path.relpath(path, root)).as_posix(), named) for path, named in found.items()
    ]


def source_name(paths: Sequence[str]) -> str:
    """A short name for a source: the first path's last part up to its first dot."""
    parts = [part for part in Path(paths[0]).parts if not _has_magic(part)]
    name = Path(parts[-1]).name if parts else ""
    return name.split(".")[0] or name or "source"


def _expand(text: str) -> Iterator[tuple[Path, bool]]:
    if "://" in text:
        raise DataError(f"{text}: remote storage cannot be read yet; copy the files here first")
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


def _common_folder(given: Sequence[str], files: list[Path]) -> str:
    """The folder that labels are relative to: the one folder given, or what all files share."""
    if len(given) == 1 and Path(given[0]).is_dir():
        return given[0]
    # Links stay as they are, or labels would depend on where the files really lie.
    return os.path.commonpath([os.path.abspath(path.parent) for path in files])  # noqa: PTH100
