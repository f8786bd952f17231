"""First stage: read a file or a span of one, clean its documents, and write them as parts.

A task is one `InputTask`, or of a corpus of very many small files a bundle of them. It leaves parts of
bounded size, so that one enormous file still feeds many workers afterwards, and beside each part what
deduplication across tasks needs to know about its documents. Copies inside the task are dropped at
once. Memory: one document, and 24 to 48 bytes for each distinct document of the task.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ...core.inventory import FileEntry
from ..audit import Audit
from ..config import CorpusConfig
from ..dedup.contamination import CONTAMINATED, Action, ContaminationIndex, check_contamination
from ..dedup.exact import ExactDedup, bytes_digest
from ..dedup.signatures import ALGORITHM
from ..document import Document, Drop
from ..parts import write_part
from ..pipeline import clean_documents, cleaning_steps, read_input
from ..plan import InputTask
from ..runners import Stage, TaskResult
from .sidecars import Sidecars

__all__ = ["CleanPart", "bundle_inputs", "clean_stage", "collect_parts"]

# A document, the digest of its text (empty where none is needed), and the UTF-8 length of the text.
Digested = tuple[Document, bytes, int]
Bundle = tuple[InputTask, ...]

MAX_PART_BYTES = 1 << 26

# Raised whenever a reader or a step gives other text for the same input.
_RULES_VERSION = 2
_BATCH_CHARACTERS = 1 << 20
_TASKS_BEFORE_BUNDLES = 1024


@dataclass(frozen=True, slots=True)
class CleanPart:
    """A part that the stage wrote.

    Args:
        number: its place among all parts, in the order of the corpus.
        path: of its documents, below the output folder.
        source: name of the one source that its documents come from.
        documents: how many.
        text_bytes: UTF-8 bytes of their texts.
        lines: how many lines have a key, where lines are compared.
    """

    number: int
    path: str
    source: str
    documents: int
    text_bytes: int
    lines: int = 0

    @property
    def stem(self) -> str:
        """What the names of the files beside the part begin with."""
        return self.path.removesuffix(".jsonl.zst")


@dataclass(frozen=True)
class _Clean:
    config: CorpusConfig
    bundles: tuple[Bundle, ...]
    folder: Path
    part_bytes: int
    index: str | None

    def __call__(self, number: int) -> TaskResult:
        bundle, audit = self.bundles[number], Audit()
        source = self.config.sources[bundle[0].source_index]
        cache = self.folder / "work" / "cache"
        read = chain.from_iterable(read_input(task, source, audit, cache) for task in bundle)
        documents = clean_documents(read, cleaning_steps(self.config, source), audit)
        if self.index is not None and self.config.contamination is not None:
            index = ContaminationIndex.load(self.folder / self.index)
            documents = _without_contamination(documents, index, self.config.contamination.action, audit)
        unique = _unique(documents, ExactDedup() if self.config.deduplication.exact else None, audit)
        parts: list[dict[str, Any]] = []
        files: list[FileEntry] = []
        first = next(unique, None)
        while first is not None:
            path = f"work/clean/part-{number:05d}-{len(parts):05d}.jsonl.zst"
            part, entries = self._write(path, first, unique)
            parts.append({**part, "source": source.label})
            files.extend(entries)
            first = next(unique, None)
        return TaskResult({"parts": parts, "audit": audit.state()}, tuple(files))

    def _write(
        self, path: str, first: Digested, rest: Iterator[Digested]
    ) -> tuple[dict[str, Any], list[FileEntry]]:
        sidecars = Sidecars(self.config.deduplication)
        with write_part(self.folder, path) as part:
            for document, digest, num_bytes in chain((first,), rest):
                part.add(document, num_bytes)
                sidecars.add(document, digest)
                if part.text_bytes >= self.part_bytes:
                    break
        size = (self.folder / path).stat().st_size
        counts, entries = sidecars.write(self.folder, path.removesuffix(".jsonl.zst"))
        # The part guards its content by a checksum of its own, so none is taken here.
        entries.append(FileEntry(path=path, num_bytes=size, sha256=""))
        values = {"path": path, "documents": part.documents, "text_bytes": part.text_bytes}
        return {**values, **counts}, entries


def _unique(documents: Iterator[Document], dedup: ExactDedup | None, audit: Audit) -> Iterator[Digested]:
    """Documents with the digests of their texts; copies inside the task are dropped if asked for."""
    for document in documents:
        data = document.text.encode("utf-8", "surrogatepass")  # once for all, because it costs a pass
        if dedup is None:
            yield document, b"", len(data)
            continue
        digest = bytes_digest(data)
        answer = dedup.judge(document, digest)
        if isinstance(answer, Drop):
            audit.count_drop(document, answer)
        else:
            yield document, digest, len(data)


def _without_contamination(
    documents: Iterator[Document], index: ContaminationIndex, action: Action, audit: Audit
) -> Iterator[Document]:
    """Judge documents in batches, which is much faster than one by one."""
    for batch in _batches(documents):
        for document, answer in zip(batch, check_contamination(batch, index, action), strict=True):
            if isinstance(answer, Drop):
                audit.count_drop(document, answer)
                continue
            if answer is not document:
                audit.flags[CONTAMINATED] += 1
            yield answer


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def clean_stage(
    config: CorpusConfig,
    inputs: Sequence[InputTask],
    folder: Path,
    *,
    part_bytes: int,
    index: str | None = None,
    request: Any = None,
) -> Stage:
    """The stage that reads and cleans.

    Args:
        config: sources and cleaning.
        inputs: what there is to read, as planned.
        folder: the output folder.
        part_bytes: a part is closed at so many bytes of text, or at 64 MiB.
        index: path of the index of evaluation sets below the folder; None if there are none.
        request: names by content what the index is made of.
    """
    part_bytes = min(part_bytes, MAX_PART_BYTES)
    bundles = bundle_inputs(inputs)
    sources = [source.model_dump(mode="json", exclude={"path"}) for source in config.sources]
    cleaning = config.model_dump(mode="json", exclude={"sources"})
    return Stage(
        name="clean",
        folder=folder,
        request=[_RULES_VERSION, ALGORITHM, unicodedata.unidata_version, cleaning, part_bytes, request],
        requests=[
            [sources[bundle[0].source_index], *(task.identity for task in bundle)] for bundle in bundles
        ],
        work=_Clean(config, tuple(bundles), folder, part_bytes, index),
        weights=[sum(task.num_bytes for task in bundle) for bundle in bundles],
    )


def bundle_inputs(inputs: Sequence[InputTask]) -> list[Bundle]:
    """Put many small files into one task, so that a corpus of a million files is no million tasks.

    Args:
        inputs: in the order of the corpus.

    Returns:
        Neighbours of one source together: as many as make about a thousand tasks of all files, up to
        64 MiB as they are stored. With fewer than some thousand files each has its own task.
    """
    most = max(1, len(inputs) // _TASKS_BEFORE_BUNDLES)
    bundles: list[list[InputTask]] = []
    size = 0
    for task in inputs:
        last = bundles[-1] if bundles else []
        same = bool(last) and last[0].source_index == task.source_index
        if not same or len(last) == most or size + task.num_bytes > MAX_PART_BYTES:
            bundles.append([])
            size = 0
        bundles[-1].append(task)
        size += task.num_bytes
    return [tuple(bundle) for bundle in bundles]


def collect_parts(results: Sequence[Mapping[str, Any]]) -> list[CleanPart]:
    """All parts of the stage, numbered in the order of the corpus."""
    parts = [part for result in results for part in result["parts"]]
    return [CleanPart(number=number, **part) for number, part in enumerate(parts)]
