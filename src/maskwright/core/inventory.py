"""Files with their length and checksum, as manifests list them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from .config import Config
from .errors import UserError
from .fingerprint import sha256_file

__all__ = ["FileEntry", "describe_file"]


class FileEntry(Config):
    """One file: its path below the folder of the manifest, length in bytes and SHA-256."""

    path: str
    num_bytes: int = Field(ge=0)
    sha256: str

    def check(
        self,
        folder: Path,
        error: type[UserError],
        remedy: str,
        *,
        content: bool,
        between: Callable[[], None] | None = None,
    ) -> None:
        """Refuse a file that is not what the manifest says.

        Args:
            folder: holds the manifest.
            error: what to raise.
            remedy: what the reader of the message can do.
            content: also compute the checksum; otherwise only the length is compared.
            between: called before each MiB of the content; where it raises, the reading ends.

        Raises:
            UserError: of the given type: missing, of another length, or with another checksum.
        """
        path = folder / self.path
        if not path.is_file():
            raise error(f"{path}: is missing; {remedy}")
        size = path.stat().st_size
        if size != self.num_bytes:
            raise error(f"{path}: has {size} bytes, the manifest says {self.num_bytes}; {remedy}")
        if content and (found := sha256_file(path, between)) != self.sha256:
            raise error(f"{path}: is damaged (SHA-256 {found}, the manifest says {self.sha256}); {remedy}")


def describe_file(folder: Path, path: str) -> FileEntry:
    """Measure a file that lies below a folder."""
    file = folder / path
    return FileEntry(path=path, num_bytes=file.stat().st_size, sha256=sha256_file(file))
