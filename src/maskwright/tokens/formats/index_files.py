"""The folder of one index of samples: three arrays, and a description that is checked when it is opened.

The folder appears whole, by one rename. Checksums are compared up to a size; beyond it lengths only,
so opening stays cheap.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...core.config import Config, parse_config
from ...core.errors import ConfigError, DataError, OutputExistsError, ShardError, StorageError
from ...core.files import TEMPORARY_MARK, publish_folder, read_json, storage_errors, write_json
from ...core.inventory import FileEntry, describe_file
from ...core.lock import lock_folder
from ...core.log import get_logger
from .samples import Int64

__all__ = ["IndexBlock", "IndexDescription", "IndexFolder", "SectionEntry"]

log = get_logger(__name__)
# Checksums are compared up to this size.
VERIFY_BYTES = 1 << 28
_WAIT_SECONDS = 0.2
_NAME = "index.json"
_TYPES = {"starts": "<i8", "lengths": "<i4", "singles": "<i8"}
_Arrays = dict[str, npt.NDArray[Any]]


class IndexBlock(NamedTuple):
    """Some samples of a source, in order.

    Attributes:
        source: where they are from.
        starts: position of the first token of each; int64, (n,).
        lengths: tokens of each; int32, (n,).
        singles: how many samples of several units of the source lie before each that has a single one;
            int64, (s,).
        num_cut: sentences that were too long to stay whole.
    """

    source: str
    starts: Int64
    lengths: npt.NDArray[np.int32]
    singles: Int64
    num_cut: int


class SectionEntry(Config):
    """What the description says of a source."""

    num_samples: int = Field(0, ge=0)
    num_singles: int = Field(0, ge=0, description="samples of a single unit")
    num_tokens: int = Field(0, ge=0, description="tokens of all samples")
    num_cut: int = Field(0, ge=0, description="sentences that were too long to stay whole")

    def plus(self, block: IndexBlock) -> SectionEntry:
        """With some more samples."""
        return SectionEntry(
            num_samples=self.num_samples + len(block.starts),
            num_singles=self.num_singles + len(block.singles),
            num_tokens=self.num_tokens + int(block.lengths.sum()),
            num_cut=self.num_cut + block.num_cut,
        )


class IndexDescription(Config):
    """Content of `index.json`."""

    request: dict[str, Any] = Field(description="all that decides the index")
    sections: dict[str, SectionEntry] = Field(description="by source, in the order of the arrays")
    files: dict[str, FileEntry]


class IndexFolder:
    """A place for one index.

    Args:
        path: the folder.
        request: all that decides the index.
    """

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path, self.request, self._told = path, dict(request), False

    def load(self) -> tuple[IndexDescription, _Arrays] | None:
        """The stored index, or None where there is none that can be used."""
        if not self.path.is_dir():
            return None
        try:
            return self._checked()
        except (ConfigError, DataError, ShardError, OSError) as error:
            if not self._told:
                log.warning("%s: the index of samples is made again (%s)", self.path, error)
            self._told = True
            return None

    def _checked(self) -> tuple[IndexDescription, _Arrays]:
        found = parse_config(IndexDescription, read_json(self.path / _NAME), str(self.path / _NAME))
        if found.request != self.request:
            raise ShardError("it belongs to other data")
        if set(found.files) != set(_TYPES):
            raise ShardError(f"{_NAME} does not name its files")
        small = sum(entry.num_bytes for entry in found.files.values()) <= VERIFY_BYTES
        for entry in found.files.values():
            entry.check(self.path, ShardError, "it is not whole", content=small)
        arrays = {kind: _open(self.path / f"{kind}.npy") for kind in _TYPES}
        num_samples = sum(entry.num_samples for entry in found.sections.values())
        num_singles = sum(entry.num_singles for entry in found.sections.values())
        lengths = {"starts": num_samples, "lengths": num_samples, "singles": num_singles}
        for kind, array in arrays.items():
            if array.shape != (lengths[kind],) or array.dtype != np.dtype(_TYPES[kind]):
                raise ShardError(f"{kind}.npy holds something else")
        return found, arrays

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let one process at a time make the index; the others wait.

        Raises:
            StorageError: the place cannot be written.
        """
        with ExitStack() as stack:
            told = False
            while True:
                try:
                    stack.enter_context(lock_folder(self.path.parent, name=f".{self.path.name}.lock"))
                    break
                except OutputExistsError as error:
                    if not self.path.parent.is_dir():
                        raise StorageError(str(error)) from error
                    if not told:
                        log.info("%s: another process makes it; waiting", self.path)
                    told = True
                    time.sleep(_WAIT_SECONDS)
            yield

    def write(self, blocks: Iterable[IndexBlock]) -> tuple[IndexDescription, _Arrays]:
        """Store an index in place of whatever is there; the folder must be held.

        Raises:
            StorageError: the storage refused. Nothing is left of the try.
        """
        for path in self.path.parent.glob(f"{self.path.name}{TEMPORARY_MARK}*"):
            _remove(path)  # of a process that was killed
        temporary = self._beside()
        try:
            with storage_errors(self.path):
                temporary.mkdir(parents=True)
                sections = _write_arrays(temporary, blocks)
            files = {kind: describe_file(temporary, f"{kind}.npy") for kind in _TYPES}
            description = IndexDescription(request=self.request, sections=sections, files=files)
            write_json(temporary / _NAME, description.model_dump())
            if self.path.exists():
                with storage_errors(self.path):
                    self.path.rename(self._beside())
            publish_folder(temporary, self.path)
        finally:
            for path in self.path.parent.glob(f"{self.path.name}{TEMPORARY_MARK}*"):
                _remove(path)
        return description, {kind: _open(self.path / f"{kind}.npy") for kind in _TYPES}

    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")


def _remove(path: Path) -> None:
    with storage_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_arrays(folder: Path, blocks: Iterable[IndexBlock]) -> dict[str, SectionEntry]:
    sections: dict[str, SectionEntry] = {}
    with ExitStack() as stack:
        files = {kind: _Growing(stack, folder / f"{kind}.npy", dtype) for kind, dtype in _TYPES.items()}
        for block in blocks:
            sections[block.source] = sections.get(block.source, SectionEntry()).plus(block)
            for kind, file in files.items():
                file.append(getattr(block, kind))
        for file in files.values():
            file.finish()
    return sections


class _Growing:
    """A `.npy` file whose length is known at the end; NumPy leaves room in the header for it."""

    def __init__(self, stack: ExitStack, path: Path, dtype: str) -> None:
        self.file: IO[bytes] = stack.enter_context(path.open("wb"))
        self.dtype, self.length = np.dtype(dtype), 0
        self.header = self._write_header()

    def _write_header(self) -> int:
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, described)
        return self.file.tell()

    def append(self, numbers: npt.NDArray[Any]) -> None:
        """Add some numbers."""
        self.file.write(np.ascontiguousarray(numbers, dtype=self.dtype).tobytes())
        self.length += len(numbers)

    def finish(self) -> None:
        """Write the length."""
        self.file.seek(0)
        end = self._write_header()
        assert end == self.header


def _open(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ShardError(f"{path.name} is no array") from error
    return np.asarray(array)  # as a plain array: a search through the subclass costs several times as much
