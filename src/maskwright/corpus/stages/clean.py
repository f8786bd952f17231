"""First stage: read a file or a span of one, clean its documents, and write them as parts.

A task is one `InputTask`. It leaves parts of bounded size, so that one enormous file still feeds
many workers afterwards, and beside each part what deduplication across tasks needs to know about
its documents. Copies inside the task are dropped at once. Memory: one document, and 24 to 48 bytes
for each distinct document of the task.
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
from ..dedup.exact import ExactDedup, text_digest
from ..dedup.signatures import ALGORITHM
from ..document import Document, Drop
from ..parts import write_part
from ..pipeline import clean_documents, cleaning_steps, read_input
from ..plan import InputTask
from ..runners import Stage, TaskResult
from .sidecars import Sidecars

__all__ = ["CleanPart", "clean_stage", "collect_parts"]

Digested = tuple[Document, bytes]

MAX_PART_BYTES = 1 << 26

# Raised whenever a reader or a step gives other text for the same input.
_RULES_VERSION = 2
_BATCH_CHARACTERS = 1 << 20


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
    inputs: tuple[InputTask, ...]
    folder: Path
    part_bytes: int
    index: str | None

    def __call__(self, number: int) -> TaskResult:
        task, audit = self.inputs[number], Audit()
        source = self.config.sources[task.source_index]
        documents = clean_documents(
            read_input(task, source, audit, self.folder / "work" / "cache"),
            cleaning_steps(self.config, source),
            audit,
        )
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
            for document, digest in chain((first,), rest):
                part.add(document)
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
        if dedup is None:
            yield document, b""
            continue
        digest = text_digest(document.text)
        answer = dedup.judge(document, digest)
        if isinstance(answer, Drop):
            audit.count_drop(document, answer)
        else:
            yield document, digest


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
    sources = [source.model_dump(mode="json", exclude={"path"}) for source in config.sources]
    cleaning = config.model_dump(mode="json", exclude={"sources"})
    return Stage(
        name="clean",
        folder=folder,
        request=[_RULES_VERSION, ALGORITHM, unicodedata.unidata_version, cleaning, part_bytes, request],
        requests=[[sources[task.source_index], task.identity] for task in inputs],
        work=_Clean(config, tuple(inputs), folder, part_bytes, index),
        weights=[task.num_bytes for task in inputs],
    )


def collect_parts(results: Sequence[Mapping[str, Any]]) -> list[CleanPart]:
    """All parts of the stage, numbered in the order of the corpus."""
    parts = [part for result in results for part in result["parts"]]
    return [CleanPart(number=number, **part) for number, part in enumerate(parts)]
