"""List what an address stands for: a file, a folder with all below it, or a pattern.

Folders and patterns are listed by the storage, patterns are matched here, by the same rules as for
local files; one that stands for a name with `*` in it cannot be written. Web servers cannot be
asked for their files. Cost: one listing of everything below the fixed part of a pattern.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...core.errors import DataError
from .objects import ObjectStat, Retry, current_retry
from .opening import is_http, open_object
from .storage import connect, info_stat, storage_failures

__all__ = ["RemoteEntry", "list_remote", "remote_path"]

Matches = Callable[[Sequence[str], Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One remote file.

    Args:
        address: with the protocol.
        stat: its size and version.
        folder: address of the folder that was given; empty if a pattern or the file itself was.
    """

    address: str
    stat: ObjectStat
    folder: str = ""


def remote_path(address: str) -> str:
    """An address without what does not belong to the path: a web address loses its query."""
    if not is_http(address):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def list_remote(address: str, matches: Matches, retry: Retry | None = None) -> list[RemoteEntry]:
    """List the files that an address stands for.

    Args:
        address: of a file, a folder, or a pattern.
        matches: whether parts of a path fit parts of a pattern.
        retry: how to go on after a failure.

    Returns:
        Files sorted by name, hidden ones left out; none if nothing matches.

    Raises:
        DataError: it cannot be reached or listed, or there is no such thing.
        MissingDependencyError: the package for the storage is not installed.
    """
    retry = retry or current_retry()
    if is_http(address):
        path = urlsplit(address).path
        if path.endswith("/") or not path or "*" in path:
            raise DataError(
                f"{address}: a web server cannot be asked which files it has; give the address of every file"
            )
        remote = open_object(address)
        return [RemoteEntry(address, retry.call(remote.stat, address))]
    return retry.call(lambda: _list_storage(address, matches), address)


def _list_storage(address: str, matches: Matches) -> list[RemoteEntry]:
    filesystem, name = connect(address)
    with storage_failures(address):
        filesystem.invalidate_cache()
        if glob.has_magic(name):
            return _match(filesystem, name, matches)
        info = filesystem.info(name)
        if info["type"] != "directory":
            return [_entry(filesystem, name, info, "")]
        folder = str(filesystem.unstrip_protocol(name))
        found = _find(filesystem, name, None)
        return [_entry(filesystem, path, details, folder) for path, details in found]


def _match(filesystem: Any, pattern: str, matches: Matches) -> list[RemoteEntry]:
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base, rest = "/".join(parts[:fixed]), parts[fixed:]
    found = _find(filesystem, base, None if "**" in rest else len(rest))
    return [
        _entry(filesystem, path, details, "") for path, details in found if matches(_below(path, base), rest)
    ]


def _find(filesystem: Any, base: str, depth: int | None) -> list[tuple[str, dict[str, Any]]]:
    """Files below a folder, in the order in which a walk by name meets them."""
    found = filesystem.find(base, maxdepth=depth, detail=True)
    shown = [
        (path, details)
        for path, details in found.items()
        # Some tools leave empty objects with the names of folders.
        if details["type"] == "file"
        and not path.endswith("/")
        and not any(part.startswith(".") for part in _below(path, base))
    ]
    return sorted(shown, key=lambda item: item[0].split("/"))


def _below(path: str, base: str) -> list[str]:
    return path[len(base.rstrip("/")) :].lstrip("/").split("/")


def _entry(filesystem: Any, path: str, details: dict[str, Any], folder: str) -> RemoteEntry:
    return RemoteEntry(str(filesystem.unstrip_protocol(path)), info_stat(details), folder)
