"""Stages `sample` and `tokenizer`: the texts to learn a vocabulary from, and the vocabulary.

The sample is chosen document by document by a key of the document's id, in parallel, so that a corpus
of any size is sampled evenly and in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...core.errors import DataError, TokenizerError
from ...core.files import TEMPORARY_MARK
from ...core.inventory import FileEntry, describe_file
from ...corpus.parts import read_part, write_part
from ...corpus.runners import Stage, TaskResult
from ...corpus.stages import CleanPart, Verdicts
from ...tokens.extend import Extension, extend_tokenizer, read_extension, save_extension
from ...tokens.segmentation import Cutter
from ...tokens.tokenizer import Tokenizer
from ..prepare_config import PrepareConfig, TokenizerConfig
from .cutting import open_cutter
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
    cutter: Cutter | None

    def __call__(self, number: int) -> TaskResult:
        path = f"work/sample/part-{number:05d}.jsonl.zst"
        with write_part(self.folder, path) as part:
            for document in surviving_documents(self.folder, self.parts[number], self.verdicts):
                if is_sampled(document, self.seed, self.share) and not is_validation(
                    document, self.seed, self.validation_share
                ):
                    text = document.text if self.cutter is None else self.cutter(document.text).text
                    part.add(replace(document, text=text))
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
    own: list[Any] = [share, config.validation_share, config.seed]
    # Spaces between words are no text, so the vocabulary must not learn from them.
    joins = config.words.segmenter == "spaces"
    own += ["joined"] if joins else []
    cutter = open_cutter(config.words) if joins else None
    return Stage(
        name="sample",
        folder=folder,
        request=[request, *own],
        requests=[part.path for part in parts],
        work=_Sample(folder, tuple(parts), verdicts, share, config.validation_share, config.seed, cutter),
        weights=[part.text_bytes for part in parts],
    )


@dataclass(frozen=True)
class _Tokenizer:
    folder: Path
    config: TokenizerConfig
    samples: tuple[str, ...]

    def __call__(self, number: int) -> TaskResult:
        tokenizer, extension = self._make()
        tokenizer.save(self.folder / FOLDER)
        save_extension(self.folder / FOLDER, extension)
        tokenizer = open_tokenizer(self.folder)
        found = (self.folder / FOLDER).iterdir()
        names = sorted(path.name for path in found if path.is_file() and TEMPORARY_MARK not in path.name)
        files = tuple(describe_file(self.folder, f"{FOLDER}/{name}") for name in names)
        return TaskResult({"fingerprint": tokenizer.fingerprint}, files)

    def _make(self) -> tuple[Tokenizer, Extension | None]:
        config = self.config
        if config.path is None:
            return Tokenizer.train(self._texts(), config.vocab_size, kind=config.kind), None
        tokenizer = Tokenizer.load(Path(config.path))
        if not config.extend:
            return tokenizer, _given_extension(config, tokenizer)
        return extend_tokenizer(tokenizer, self._texts(), config.extend, config.extend_min_count)

    def _texts(self) -> Iterator[str]:
        for path in self.samples:
            for document in read_part(self.folder / path):
                yield document.text


def _given_extension(config: TokenizerConfig, tokenizer: Tokenizer) -> Extension | None:
    """What an earlier run added to the tokenizer that is taken, so that it is not forgotten."""
    if config.path is None or config.extend:
        return None
    path = Path(config.path)
    extension = read_extension(path if path.is_dir() else path.parent)
    if extension is not None and extension.base_vocab_size + len(extension.new) != tokenizer.vocab_size:
        raise TokenizerError(
            f"{path}: extension.json tells of {extension.base_vocab_size} and {len(extension.new)} more "
            f"entries, but the vocabulary has {tokenizer.vocab_size}; take the two from one place, or remove "
            "extension.json"
        )
    return extension


def tokenizer_stage(config: TokenizerConfig, folder: Path, samples: Sequence[Mapping[str, Any]]) -> Stage:
    """The stage that trains the tokenizer, or takes or extends the one given; a single task.

    Args:
        config: what to train, or what to take.
        folder: the output folder.
        samples: results of the stage `sample`; empty if nothing is learned.

    Raises:
        DataError: the sample is empty.
        TokenizerError: the tokenizer given cannot be used.
    """
    if config.learns and not any(sample["documents"] for sample in samples):
        raise DataError(
            f"{folder}: no documents are left to train a tokenizer on; "
            "add text, lower validation_share or raise tokenizer.sample_bytes"
        )
    given: list[Any] = [None]
    if config.path is not None:
        tokenizer = Tokenizer.load(Path(config.path))
        extension = _given_extension(config, tokenizer)
        given = [tokenizer.fingerprint]
        given += [extension.model_dump(mode="json")] if extension is not None else []
    return Stage(
        name="tokenizer",
        folder=folder,
        request=[config.model_dump(mode="json", exclude={"path"}), *given],
        requests=[list(samples)],
        work=_Tokenizer(folder, config, tuple(sample["path"] for sample in samples)),
    )
