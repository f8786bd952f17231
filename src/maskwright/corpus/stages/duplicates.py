"""Stages that find copies across the whole corpus: `exact`, `bands` and `clusters`, `lines`.

Each sees the keys of all parts, in ranges of buckets, so its memory is bounded and its tasks are
independent. Documents that one stage drops are invisible to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ...core.inventory import describe_file
from ..dedup.bands import BYTES_PER_BAND, band_edges, choose_bands
from ..dedup.buckets import Excluded, Part, bucket_ranges
from ..dedup.clusters import choose_copies, connect
from ..dedup.config import LinesConfig, NearConfig
from ..dedup.exact import BYTES_PER_DIGEST, exact_duplicates
from ..dedup.lines import BYTES_PER_LINE, repeated_lines
from ..dedup.tables import DROPS, excluded_rows, read_table, save_array
from ..runners import Stage, TaskResult
from .clean import CleanPart

__all__ = ["bands_stage", "clusters_stage", "exact_stage", "lines_stage"]

TASK_BYTES = 1 << 29


@dataclass(frozen=True)
class _Files:
    """Parts, and decisions that came before."""

    folder: Path
    parts: tuple[CleanPart, ...]
    dropped: tuple[str, ...] = ()

    def beside(self, suffix: str) -> list[Part]:
        return [(part.number, self.folder / f"{part.stem}{suffix}") for part in self.parts]

    def excluded(self) -> Excluded:
        return excluded_rows(read_table([self.folder / path for path in self.dropped], DROPS))

    def save(self, path: str, table: npt.NDArray[Any], **values: Any) -> TaskResult:
        save_array(self.folder / path, table)
        return TaskResult({"path": path, "count": len(table), **values}, (describe_file(self.folder, path),))


@dataclass(frozen=True)
class _Exact:
    files: _Files
    ranges: tuple[range, ...]

    def __call__(self, number: int) -> TaskResult:
        table = exact_duplicates(self.files.beside(".digests"), self.ranges[number])
        return self.files.save(f"work/exact/drops-{number:05d}.npy", table)


@dataclass(frozen=True)
class _Bands:
    files: _Files
    near: NearConfig
    tasks: tuple[tuple[int, range], ...]

    def __call__(self, number: int) -> TaskResult:
        band, buckets = self.tasks[number]
        edges = band_edges(
            self.files.beside(".bands"),
            self.files.beside(".signatures.npy"),
            band,
            buckets,
            self.near.threshold,
            self.files.excluded(),
        )
        return self.files.save(f"work/bands/edges-{number:05d}.npy", edges)


@dataclass(frozen=True)
class _Clusters:
    files: _Files
    near: NearConfig
    edges: tuple[str, ...]

    def __call__(self, number: int) -> TaskResult:
        components = connect([self.files.folder / path for path in self.edges])
        table, found = choose_copies(components, self.files.beside(".lengths.npy"), self.near.keep)
        largest = [
            {"size": cluster.size, "kept": cluster.kept, "dropped": cluster.dropped}
            for cluster in found.largest
        ]
        values = {"documents": found.documents, "clusters": found.clusters, "largest": largest}
        path = "work/clusters/drops.npy"
        return self.files.save(path, table, **values, cluster_sizes=found.cluster_sizes)


@dataclass(frozen=True)
class _Lines:
    files: _Files
    ranges: tuple[range, ...]

    def __call__(self, number: int) -> TaskResult:
        table = repeated_lines(self.files.beside(".lines"), self.ranges[number], self.files.excluded())
        return self.files.save(f"work/lines/drops-{number:05d}.npy", table)


def exact_stage(folder: Path, parts: Sequence[CleanPart], request: Any) -> Stage:
    """Find exact copies across tasks.

    Args:
        folder: the output folder.
        parts: of the corpus, with their digests beside them.
        request: names the parts by their content.
    """
    ranges = bucket_ranges(sum(part.documents for part in parts), BYTES_PER_DIGEST, TASK_BYTES)
    work = _Exact(_Files(folder, tuple(parts)), tuple(ranges))
    weights = _weights(parts, len(ranges), BYTES_PER_DIGEST)
    return Stage("exact", folder, request, _names(ranges), work, weights)


def bands_stage(
    folder: Path, parts: Sequence[CleanPart], near: NearConfig, dropped: Sequence[str], request: Any
) -> Stage:
    """Find pairs of similar documents, band by band.

    Args:
        folder: the output folder.
        parts: of the corpus, with their signatures beside them.
        near: what counts as similar.
        dropped: decisions on documents that are out already.
        request: names parts and decisions by their content.
    """
    ranges = bucket_ranges(sum(part.documents for part in parts), BYTES_PER_BAND, TASK_BYTES)
    bands = choose_bands(near.num_perm, near.threshold).bands
    tasks = tuple((band, buckets) for band in range(bands) for buckets in ranges)
    work = _Bands(_Files(folder, tuple(parts), tuple(dropped)), near, tasks)
    requests = [[band, buckets.start, buckets.stop] for band, buckets in tasks]
    weights = _weights(parts, len(tasks), bands * BYTES_PER_BAND)
    return Stage("bands", folder, [request, near.model_dump(mode="json")], requests, work, weights)


def clusters_stage(
    folder: Path, parts: Sequence[CleanPart], near: NearConfig, edges: Sequence[str], request: Any
) -> Stage:
    """Join the pairs to clusters and choose what stays; a single task.

    Args:
        folder: the output folder.
        parts: of the corpus, with the lengths of documents beside them.
        near: which document of a cluster stays.
        edges: files of the stage `bands`.
        request: names parts and pairs by their content.
    """
    work = _Clusters(_Files(folder, tuple(parts)), near, tuple(edges))
    return Stage("clusters", folder, [request, near.model_dump(mode="json")], [list(edges)], work)


def lines_stage(
    folder: Path,
    parts: Sequence[CleanPart],
    lines: LinesConfig,
    dropped: Sequence[str],
    request: Any,
) -> Stage:
    """Find lines that repeat an earlier line of the corpus.

    Args:
        folder: the output folder.
        parts: of the corpus, with the keys of their lines beside them.
        lines: which lines count.
        dropped: decisions on documents that are out already.
        request: names parts and decisions by their content.
    """
    ranges = bucket_ranges(sum(part.lines for part in parts), BYTES_PER_LINE, TASK_BYTES)
    work = _Lines(_Files(folder, tuple(parts), tuple(dropped)), tuple(ranges))
    weights = [sum(part.lines for part in parts) * BYTES_PER_LINE // len(ranges)] * len(ranges)
    return Stage("lines", folder, [request, lines.model_dump(mode="json")], _names(ranges), work, weights)


def _names(ranges: Sequence[range]) -> list[list[int]]:
    return [[buckets.start, buckets.stop] for buckets in ranges]


def _weights(parts: Sequence[CleanPart], tasks: int, bytes_per_document: int) -> list[int]:
    """Bytes of work in each of the tasks of a stage."""
    return [sum(part.documents for part in parts) * bytes_per_document // tasks] * tasks
