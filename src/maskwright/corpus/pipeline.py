"""From one input to a stream of clean documents: a reader, then steps, with one audit.

Documents pass one at a time, so memory is one document plus what steps remember. Reading is lazy:
errors in a source show when the stream comes to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.errors import DataError
from ..core.log import get_logger
from .audit import Audit
from .config import CorpusConfig, SourceConfig
from .document import Document, Drop, Step
from .length import length_step
from .normalise import normalise_step
from .plan import InputTask, source_files
from .readers import ALL_SETTINGS, HEEDED_SETTINGS, READERS, ReadOptions
from .rules import rule_steps
from .sources import SourceFile

__all__ = [
    "InputFile",
    "clean_documents",
    "cleaning_steps",
    "input_files",
    "read_input",
    "require_documents",
    "require_few_bad_lines",
    "warn_of_ignored",
]

_log = get_logger(__name__)


class InputFile(NamedTuple):
    """A file to read: of which source (its number), the file, and its format."""

    source_index: int
    file: SourceFile
    format: str


def clean_documents(documents: Iterable[Document], steps: Sequence[Step], audit: Audit) -> Iterator[Document]:
    """Pass documents through cleaning steps in order.

    Args:
        documents: as they left their readers.
        steps: applied one after the other; the first that drops a document ends its way.
        audit: told about every document read or dropped.

    Yields:
        What passed every step.
    """
    for document in documents:
        audit.count_read(document)
        result: Document | Drop = document
        for step in steps:
            result = step(document)
            if isinstance(result, Drop):
                audit.count_drop(document, result)
                break
            document = result
        else:
            yield document


def cleaning_steps(config: CorpusConfig, source: SourceConfig) -> list[Step]:
    """The steps that a config asks for, in their order: form, rules, length. They remember nothing.

    Args:
        config: cleaning of the corpus.
        source: may have rules of its own.

    Raises:
        MissingDependencyError: a rule needs a package that is not installed.
    """
    rules = config.rules if source.rules is None else source.rules
    steps = rule_steps(rules, config.unicode_form)
    # Wrongly decoded text has control characters in it, which normalising would take away.
    repair = [steps.pop(0)] if "fix_text" in rules.active else []
    return [
        *repair,
        normalise_step(config.unicode_form),
        *steps,
        length_step(config.min_characters, config.max_characters),
    ]


def read_input(
    task: InputTask, source: SourceConfig, audit: Audit, cache_folder: Path | None = None
) -> Iterator[Document]:
    """Read one file, or the span of it that the task names.

    Args:
        task: which file, span and format.
        source: how to read it.
        audit: told about records that did not become documents.
        cache_folder: where the local docs may keep what they collected.

    Yields:
        Documents as they are, not cleaned.

    Raises:
        DataError: the file is missing, unreadable, binary, damaged, or changed while it was read.
    """
    options = ReadOptions(
        source=source.label,
        text_field=source.text_field,
        id_field=source.id_field,
        header=source.header,
        encoding_errors=source.encoding_errors,
        max_bad_lines=source.max_bad_lines,
        split_documents=source.split_documents,
        splits=source.splits,
        cache_folder=cache_folder,
    )
    return READERS[task.format](task.file, options, audit)


def require_documents(config: CorpusConfig, audit: Audit, kept: int) -> None:
    """Refuse to go on with an empty corpus.

    Raises:
        DataError: nothing was read, or nothing was left.
    """
    if kept:
        return
    names = ", ".join(", ".join(source.paths) for source in config.sources)
    if not audit.documents_read or set(audit.drops) == {"empty_file"}:
        raise DataError(f"{names}: holds no documents; check that the files are not empty")
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(audit.drops.items()))
    raise DataError(
        f"{names}: none of {audit.documents_read} documents was kept (dropped: {drops}); "
        "check the text and the cleaning settings"
    )


def require_few_bad_lines(config: CorpusConfig, audit: Audit) -> None:
    """Hold files that were read in several spans to the limit of malformed lines, which is for a file.

    Raises:
        DataError: a file has more.
    """
    limits = {source.label: source.max_bad_lines for source in config.sources}
    for name, count in sorted(audit.bad_lines.items()):
        source, _, label = name.partition(":")
        if count > limits[source]:
            raise DataError(
                f"{label}: has {count} malformed lines in source {source} "
                f"(mend the file, or set max_bad_lines above {limits[source]})"
            )


def input_files(sources: Sequence[SourceConfig]) -> list[InputFile]:
    """All files of all sources, in the order of the corpus.

    Raises:
        DataError: a source cannot be listed, or a file that was named tells no format.
    """
    return [
        InputFile(index, file, format_name)
        for index, source in enumerate(sources)
        for file, format_name in source_files(source)
    ]


def warn_of_ignored(sources: Sequence[SourceConfig], files: Iterable[InputFile]) -> None:
    """Say which settings that differ from their defaults mean nothing for a format that is met."""
    for source_index, format_name in sorted({(file.source_index, file.format) for file in files}):
        source = sources[source_index]
        for name in sorted(ALL_SETTINGS - HEEDED_SETTINGS[format_name]):
            value = getattr(source, name)
            if value != SourceConfig.model_fields[name].default:
                _log.warning(
                    "%s: %s is %r, which the format %s ignores", source.label, name, value, format_name
                )
