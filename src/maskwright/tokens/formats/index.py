"""The index of samples: where each begins and how long it is, stored beside the data.

It is made once for each data, format and length, shard by shard, and kept as memory-mapped arrays in
`samples/` of the data folder, so opening costs the same at any size. One that is damaged or belongs to
other data is made again; where the folder cannot be written, the index stays in memory for the run.
Cost: 12 bytes a sample (8 more for a pair's run of one unit), a pass over the ends of sentences and
documents, and no tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import ShardError, StorageError
from ...core.fingerprint import fingerprint
from ...core.log import get_logger
from ...core.progress import progress
from ..shards import TokenData
from .borders import Borders, Units
from .index_files import IndexBlock, IndexDescription, IndexFolder
from .samples import Cut, Int64

__all__ = ["Follow", "Section", "SampleIndex", "open_index"]

log = get_logger(__name__)
# For each unit, which unit comes behind a sample that begins with it.
Follow = Callable[[Units, Cut], Int64]
# Raised when the same data would be cut otherwise.
_VERSION = 1
SAY_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Section:
    """The samples of one source in the order of the corpus.

    Attributes:
        starts: position of the first token of each; int64, (n,).
        lengths: tokens of each; int32, (n,).
        singles: how many samples of several units lie before each that has a single one; int64, (s,).
        num_tokens: tokens of all.
        num_cut: sentences that were too long to stay whole.
    """

    starts: Int64
    lengths: npt.NDArray[np.int32]
    singles: Int64
    num_tokens: int
    num_cut: int


@dataclass(frozen=True)
class SampleIndex:
    """The index of a split: a section a source, and where it is stored ("" in memory)."""

    sections: Mapping[str, Section]
    folder: str = ""


def open_index(data: TokenData, cut: Cut, follow: Follow, *, crosses_documents: bool) -> SampleIndex:
    """Open the stored index of a split; make it if there is none that fits.

    Args:
        data: the split, with ends of sentences.
        cut: how it is cut.
        follow: the format's rule.
        crosses_documents: whether a sample may go on in the next document.

    Raises:
        ShardError: the data has no ends of sentences, or a shard cannot be read.
    """
    _require_sentences(data, cut)
    request = _request(data, cut)
    name = f"{data.split}-{cut.format.name}-{cut.sequence_length}-{fingerprint(request)[:8]}"
    folder = IndexFolder(data.folder / "samples" / name, request)

    def blocks() -> Iterator[IndexBlock]:
        return _told(data, _cut_all(data, cut, follow, crosses_documents), name)

    stored = folder.load()
    if stored is None:
        try:
            with folder.held():
                stored = folder.load() or folder.write(blocks())
        except StorageError as error:
            log.warning("%s; the index of samples is kept in memory, and made again by the next run", error)
            return SampleIndex(_in_memory(blocks()))
    return SampleIndex(_sections(*stored), str(folder.path))


def _require_sentences(data: TokenData, cut: Cut) -> None:
    if any(shard.sentences is None for shard in data.shards):
        raise ShardError(
            f"{data.folder}: was prepared without the ends of sentences, which format {cut.format.name!r} "
            "needs; prepare it again with sentences=true, or take format.name=windows"
        )


def _request(data: TokenData, cut: Cut) -> dict[str, Any]:
    """All that decides the index."""
    return {
        "version": _VERSION,
        "data": data.manifest.fingerprint,
        "split": data.split,
        "format": cut.format.name,
        "room": cut.room,
        "longest_unit": cut.longest_unit,
        "short_share": cut.format.short_share if cut.format.name == "segment-pair" else None,
    }


def _cut_all(data: TokenData, cut: Cut, follow: Follow, crosses_documents: bool) -> Iterator[IndexBlock]:
    """The samples of every source, a part of a shard at a time."""
    borders = Borders(data, cut.longest_unit)
    for source, shards in groupby(range(len(data.shards)), key=lambda number: data.shards[number].source):
        several, waiting = 0, Units(*np.empty((3, 0), np.int64))
        for units in chain.from_iterable(map(borders.units, shards)):
            joined = units.after(waiting) if len(waiting.starts) else units
            block, rest = _cut_units(source, joined, follow(joined, cut), several, ends=not crosses_documents)
            waiting, several = joined.from_unit(rest), several + len(block.starts) - len(block.singles)
            yield block
        if len(waiting.starts):
            yield _cut_units(source, waiting, follow(waiting, cut), several, ends=True)[0]


def _cut_units(
    source: str, units: Units, behind: Int64, several: int, *, ends: bool
) -> tuple[IndexBlock, int]:
    """Go from sample to sample.

    Args:
        source: whose units they are.
        units: some units, the first of which begins a sample.
        behind: for each the unit behind a sample that begins with it.
        several: samples of several units that came before.
        ends: whether the last sample is whole; else it may go on.

    Returns:
        The samples, and the number of the unit that begins the next one.
    """
    jumps, firsts, place = behind.tolist(), [], 0
    while place < len(jumps) and (ends or jumps[place] < len(jumps)):
        firsts.append(place)
        place = jumps[place]
    first = np.array(firsts, np.int64)
    starts = units.starts[first]
    lengths = units.ends[behind[first] - 1] - starts
    single = np.flatnonzero(behind[first] - first == 1)
    singles = several + single - np.arange(len(single))
    return IndexBlock(source, starts, lengths.astype(np.int32), singles, units.num_cut), place


def _told(data: TokenData, blocks: Iterator[IndexBlock], name: str) -> Iterator[IndexBlock]:
    """Pass blocks on, and say how far along they are: a bar for a terminal, a line at times for a log."""
    began = said = time.monotonic()
    samples = tokens = 0
    with progress("indexing samples", data.num_tokens, "tokens") as advance:
        for block in blocks:
            yield block
            read = int(block.lengths.sum())
            samples, tokens = samples + len(block.starts), tokens + read
            advance(read)
            now = time.monotonic()
            if now - said >= SAY_EVERY_SECONDS:
                said, rate = now, tokens / (now - began)
                log.info(
                    "indexing samples: %s of %s tokens, %s/s",
                    f"{tokens:,}",
                    f"{data.num_tokens:,}",
                    f"{rate:,.0f}",
                )
    log.info("indexed %s samples of %s tokens (%s)", f"{samples:,}", f"{tokens:,}", name)


def _in_memory(blocks: Iterable[IndexBlock]) -> dict[str, Section]:
    found: dict[str, list[IndexBlock]] = {}
    for block in blocks:
        found.setdefault(block.source, []).append(block)
    return {
        source: Section(
            starts=np.concatenate([block.starts for block in mine]),
            lengths=np.concatenate([block.lengths for block in mine]),
            singles=np.concatenate([block.singles for block in mine]),
            num_tokens=sum(int(block.lengths.sum()) for block in mine),
            num_cut=sum(block.num_cut for block in mine),
        )
        for source, mine in found.items()
    }


def _sections(description: IndexDescription, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Section]:
    found, first, first_single = {}, 0, 0
    for source, entry in description.sections.items():
        end, end_single = first + entry.num_samples, first_single + entry.num_singles
        found[source] = Section(
            arrays["starts"][first:end],
            arrays["lengths"][first:end],
            arrays["singles"][first_single:end_single],
            entry.num_tokens,
            entry.num_cut,
        )
        first, first_single = end, end_single
    return found
