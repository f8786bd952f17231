"""Stages that come before reading: `count` numbers the lines of files that are cut, `contamination`
indexes the evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.inventory import describe_file
from ..dedup.config import ContaminationConfig
from ..dedup.contamination import ContaminationIndex
from ..dedup.evaluation import evaluation_texts
from ..runners import Stage, TaskResult
from ..sources import find_files
from ..spans import CountRequest, count_lines

__all__ = ["contamination_stage", "count_stage"]


@dataclass(frozen=True)
class _Count:
    requests: tuple[CountRequest, ...]

    def __call__(self, number: int) -> TaskResult:
        request = self.requests[number]
        return TaskResult({"count": count_lines(request.file, request.start, request.stop)})


def count_stage(folder: Path, requests: Sequence[CountRequest]) -> Stage:
    """Count line ends, one task a stretch of a file.

    Args:
        folder: the output folder.
        requests: the stretches.
    """
    names = [[one.file.label, one.file.version, one.start, one.stop] for one in requests]
    weights = [request.stop - request.start for request in requests]
    return Stage("count", folder, None, names, _Count(tuple(requests)), weights)


@dataclass(frozen=True)
class _Contamination:
    folder: Path
    config: ContaminationConfig

    def __call__(self, number: int) -> TaskResult:
        texts = {one.label: evaluation_texts(one) for one in self.config.evaluation}
        index = ContaminationIndex.from_texts(texts, self.config.ngram, self.config.min_words)
        path = "work/contamination/index.npz"
        index.save(self.folder / path)
        counts = {
            name: {"used": count.used, "ignored": count.ignored} for name, count in index.counts.items()
        }
        return TaskResult({"path": path, "counts": counts}, (describe_file(self.folder, path),))


def contamination_stage(config: ContaminationConfig, folder: Path) -> Stage:
    """Index the evaluation sets that must not be in the corpus; a single task.

    Args:
        config: which sets, and what counts.
        folder: the output folder.

    Raises:
        DataError: an evaluation set cannot be found.
    """
    files = [[file.label, file.version] for one in config.evaluation for file in find_files(one.paths)]
    request = [config.model_dump(mode="json", exclude={"action"}), files]
    return Stage("contamination", folder, request, [None], _Contamination(folder, config))
