"""Plan what there is to read: every file of every source, large ones cut into spans.

The plan depends on the files and the settings alone, so it is the same on every machine that sees
the same files. Cost: the listing, and one pass over files that are cut, to number their lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.files import is_remote
from ..core.log import get_logger
from .config import LOCAL_DOCS, SourceConfig
from .local_docs import environment_fingerprint
from .readers import SUFFIXES, guess_format
from .readers.parquet import row_group_bytes
from .remote import open_object
from .remote.objects import current_retry
from .sources import SourceFile, Span, find_files
from .spans import CountRequest, count_serially, cut_lines, cut_rows, number_lines, requests_for
from .streams import is_compressed

__all__ = ["SPLITTERS", "Count", "InputTask", "Splitter", "plan_inputs", "source_files"]

_log = get_logger(__name__)

Count = Callable[[Sequence[CountRequest]], list[int]]
Splitter = Callable[[SourceFile, int], list[tuple[Span, int]]]

# Formats that are cut by other marks than lines: a function of the file and the size of a span that
# gives the spans and their sizes in bytes, before compression if the format has its own.
SPLITTERS: dict[str, Splitter] = {
    "parquet": lambda file, split_bytes: cut_rows(row_group_bytes(file), split_bytes),
}


@dataclass(frozen=True, slots=True)
class InputTask:
    """One file, or one span of a file, to be read by one task.

    Args:
        number: its place among all, in the order of the corpus.
        source_index: which source it belongs to.
        source: name of that source.
        format: how to read it.
        file: what to read.
        num_bytes: how much that is, as it is stored; 0 if unknown.
    """

    number: int
    source_index: int
    source: str
    format: str
    file: SourceFile
    num_bytes: int

    @property
    def identity(self) -> list[Any]:
        """Names what the task reads, by values that JSON holds; the folder it lies in is not among them."""
        span = self.file.span
        place = None if span is None else [span.start, span.stop, span.first_line]
        return [self.source, self.file.label, self.file.version, self.format, place]


def plan_inputs(
    sources: Sequence[SourceConfig], split_bytes: int, *, count: Count = count_serially
) -> list[InputTask]:
    """List what is to be read, in the order of the corpus.

    Lines are never cut. Compressed files, CSV (a quoted field may hold line ends), whole files that
    are one document, and remote files on servers without ranges stay in one piece.

    Args:
        sources: where and how.
        split_bytes: files larger than this are cut into spans of this size, where their format allows.
        count: counts line ends; give another one to count in several processes.

    Returns:
        Tasks, numbered from 0.

    Raises:
        DataError: a source cannot be listed, or a file to be cut cannot be read.
    """
    if split_bytes < 1:
        raise ValueError(f"split_bytes is {split_bytes}, expected at least 1")
    planned = [
        _Planned(index, format_name, file, *_cut(file, format_name, source, split_bytes))
        for index, source in enumerate(sources)
        for file, format_name in source_files(source)
    ]
    counts = iter(count([request for item in planned for request in item.requests]))
    tasks: list[InputTask] = []
    for item in planned:
        label, spans = sources[item.source_index].label, item.spans
        if item.requests:
            spans = number_lines(spans, [next(counts) for _ in item.requests])
        for span, size in zip(spans or (None,), item.sizes, strict=True):
            file = replace(item.file, span=span)
            tasks.append(InputTask(len(tasks), item.source_index, label, item.format, file, size))
    return tasks


def source_files(source: SourceConfig) -> Iterator[tuple[SourceFile, str]]:
    """A source's files with the names of their formats.

    Raises:
        DataError: the source cannot be listed, or a file that was named tells no format.
    """
    if source.is_local_docs:
        yield SourceFile(Path(LOCAL_DOCS), LOCAL_DOCS, version=environment_fingerprint()), LOCAL_DOCS
        return
    left_out = 0
    for file in find_files(source.paths):
        format_name = guess_format(file.path) if source.format == "auto" else source.format
        if format_name is not None:
            yield file, format_name
        elif file.named:
            raise DataError(
                f"{file.path}: its suffix does not tell the format (known: {', '.join(sorted(SUFFIXES))}); "
                "set format"
            )
        else:
            left_out += 1
    if left_out:
        _log.warning(
            "%s: left out %d files whose suffix does not tell a format; set format to read them",
            source.label,
            left_out,
        )


@dataclass(frozen=True, slots=True)
class _Planned:
    """A file with its spans, none if it stays whole, their sizes, and what to count to number lines."""

    source_index: int
    format: str
    file: SourceFile
    spans: Sequence[Span]
    sizes: Sequence[int]
    requests: Sequence[CountRequest]


def _cut(
    file: SourceFile, format_name: str, source: SourceConfig, split_bytes: int
) -> tuple[Sequence[Span], Sequence[int], Sequence[CountRequest]]:
    """Spans, sizes and requests for `_Planned`."""
    whole: tuple[Sequence[Span], Sequence[int], Sequence[CountRequest]] = ((), (file.num_bytes or 0,), ())
    if file.num_bytes is None or file.num_bytes <= split_bytes:
        return whole
    if format_name in SPLITTERS:
        groups = SPLITTERS[format_name](file, split_bytes)
        total = max(1, sum(size for _, size in groups))
        stored = [size * file.num_bytes // total for _, size in groups]
        return ([span for span, _ in groups], stored, ()) if len(groups) > 1 else whole
    if not _has_lines(format_name, source) or is_compressed(file.path) or not _is_ranged(file):
        return whole
    spans = cut_lines(file.num_bytes, split_bytes)
    return spans, [span.stop - span.start for span in spans], requests_for(file, spans)


def _has_lines(format_name: str, source: SourceConfig) -> bool:
    """Whether records of a format begin and end with lines."""
    if format_name in ("text", "markdown"):
        return source.split_documents != "file"
    return format_name in ("jsonl", "tsv")


def _is_ranged(file: SourceFile) -> bool:
    """Whether reading may begin in the middle of a file without all that lies before it."""
    if not is_remote(file.path):
        return True
    with contextlib.closing(open_object(str(file.path))) as remote:
        return current_retry().call(remote.stat, str(file.path)).ranged
