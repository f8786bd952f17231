"""Stages `sample` and `tokenizer`: the texts to learn a vocabulary from, and the vocabulary.

The sample is chosen document by document by a key of the document's id, in parallel, so that a corpus
of any size is sampled evenly and in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.files import TEMPORARY_MARK
from ...core.inventory import FileEntry, describe_file
from ...corpus.parts import read_part, write_part
from ...corpus.runners import Stage, TaskResult
from ...corpus.stages import CleanPart, Verdicts
from ...tokens.tokenizer import Tokenizer
from ..prepare_config import PrepareConfig, TokenizerConfig
from .surviving import is_sampled, is_validation, surviving_documents

__all__ = ["open_tokenizer", "sample_stage", "tokenizer_stage"]

FOLDER = "tokenizer"


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run, kept by the process for its next task: loading it takes as long as a task may.

    Args:
        folder: the output folder of the run.

    Raises:
        TokenizerError: there is none, or it cannot be used.
    """
    file = folder / FOLDER / "tokenizer.json"
    if not file.is_file():
        return Tokenizer.load(folder / FOLDER)  # which says what is missing
    status = file.stat()
    return _open(folder, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _open(folder: Path, modified_ns: int, num_bytes: int) -> Tokenizer:
    return Tokenizer.load(folder / FOLDER)


@dataclass(frozen=True)
class _Sample:
    folder: Path
    parts: tuple[CleanPart, ...]
    verdicts: Verdicts
    share: float
    validation_share: float
    seed: int

    def __call__(self, number: int) -> TaskResult:
        path = f"work/sample/part-{number:05d}.jsonl.zst"
        with write_part(self.folder, path) as part:
            for document in surviving_documents(self.folder, self.parts[number], self.verdicts):
                if is_sampled(document, self.seed, self.share) and not is_validation(
                    document, self.seed, self.validation_share
                ):
                    part.add(document)
        entry = FileEntry(path=path, num_bytes=(self.folder / path).stat().st_size, sha256="")
        values = {"path": path, "documents": part.documents, "text_bytes": part.text_bytes}
        return TaskResult(values, (entry,))


def sample_stage(
    config: PrepareConfig, folder: Path, parts: Sequence[CleanPart], verdicts: Verdicts, request: Any
) -> Stage:
    """The stage that takes the tokenizer's sample, one task a part.

    Args:
        config: has the size of the sample.
        folder: the output folder.
        parts: of the cleaned corpus.
        verdicts: what deduplication decided.
        request: names the parts and the verdicts by their content.
    """
    total = sum(part.text_bytes for part in parts)
    share = min(1.0, config.tokenizer.sample_bytes / max(1, total))
    return Stage(
        name="sample",
        folder=folder,
        request=[request, share, config.validation_share, config.seed],
        requests=[part.path for part in parts],
        work=_Sample(folder, tuple(parts), verdicts, share, config.validation_share, config.seed),
        weights=[part.text_bytes for part in parts],
    )


@dataclass(frozen=True)
class _Tokenizer:
    folder: Path
    config: TokenizerConfig
    samples: tuple[str, ...]

    def __call__(self, number: int) -> TaskResult:
        if self.config.path is not None:
            tokenizer = Tokenizer.load(Path(self.config.path))
        else:
            tokenizer = Tokenizer.train(self._texts(), self.config.vocab_size, kind=self.config.kind)
        tokenizer.save(self.folder / FOLDER)
        tokenizer = open_tokenizer(self.folder)
        found = (self.folder / FOLDER).iterdir()
        names = sorted(path.name for path in found if path.is_file() and TEMPORARY_MARK not in path.name)
        files = tuple(describe_file(self.folder, f"{FOLDER}/{name}") for name in names)
        return TaskResult({"fingerprint": tokenizer.fingerprint}, files)

    def _texts(self) -> Iterator[str]:
        for path in self.samples:
            for document in read_part(self.folder / path):
                yield document.text


def tokenizer_stage(config: TokenizerConfig, folder: Path, samples: Sequence[Mapping[str, Any]]) -> Stage:
    """The stage that trains the tokenizer or takes the one given; a single task.

    Args:
        config: what to train, or what to take.
        folder: the output folder.
        samples: results of the stage `sample`; empty if a tokenizer is given.

    Raises:
        DataError: the sample is empty.
        TokenizerError: the tokenizer given cannot be used.
    """
    if config.path is None and not any(sample["documents"] for sample in samples):
        raise DataError(
            f"{folder}: no documents are left to train a tokenizer on; "
            "add text, lower validation_share or raise tokenizer.sample_bytes"
        )
    given = Tokenizer.load(Path(config.path)).fingerprint if config.path is not None else None
    return Stage(
        name="tokenizer",
        folder=folder,
        request=[config.model_dump(mode="json", exclude={"path"}), given],
        requests=[list(samples)],
        work=_Tokenizer(folder, config, tuple(sample["path"] for sample in samples)),
    )
