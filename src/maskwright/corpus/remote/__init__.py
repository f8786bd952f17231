"""Read and list files on other machines: web servers by themselves, object storage through `fsspec`."""

from __future__ import annotations

from .listing import RemoteEntry, list_remote, remote_path
from .objects import ObjectStat, RemoteObject, Retry
from .opening import open_object, open_remote
from .resuming import ResumingReader

__all__ = [
    "ObjectStat",
    "RemoteEntry",
    "RemoteObject",
    "ResumingReader",
    "Retry",
    "list_remote",
    "open_object",
    "open_remote",
    "remote_path",
]
