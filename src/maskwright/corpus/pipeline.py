"""From a corpus config to a stream of clean documents: readers, then steps, with one audit.

Documents pass one at a time, so memory is one document plus what deduplication remembers. Reading
is lazy: errors in a source show when the stream comes to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..core.errors import DataError
from ..core.fingerprint import fingerprint, sha256_file
from ..core.log import get_logger
from .audit import Audit
from .config import LOCAL_DOCS, CorpusConfig, SourceConfig
from .document import Document, Drop, Step
from .exact_dedup import ExactDedup
from .length import length_step
from .local_docs import environment_fingerprint
from .normalise import normalise_step
from .readers import ALL_SETTINGS, HEEDED_SETTINGS, READERS, SUFFIXES, ReadOptions, guess_format
from .sources import SourceFile, find_files

__all__ = ["clean_documents", "cleaning_steps", "corpus_fingerprint", "open_corpus", "read_source"]

# Raised whenever a reader or a step gives other text for the same input.
_RULES_VERSION = 1

_log = get_logger(__name__)


def clean_documents(documents: Iterable[Document], steps: Sequence[Step], audit: Audit) -> Iterator[Document]:
    """Pass documents through cleaning steps in order.

    Args:
        documents: as they left their readers.
        steps: applied one after the other; the first that drops a document ends its way.
        audit: told about every document.

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
            audit.count_kept(document)
            yield document


def cleaning_steps(config: CorpusConfig) -> list[Step]:
    """The steps that a config asks for, in their order. Deduplication starts with an empty memory."""
    steps: list[Step] = [
        normalise_step(config.unicode_form),
        length_step(config.min_characters, config.max_characters),
    ]
    if config.deduplicate:
        steps.append(ExactDedup())
    return steps


def read_source(source: SourceConfig, audit: Audit, cache_folder: Path | None = None) -> Iterator[Document]:
    """Read one source, file after file.

    Args:
        source: where and how.
        audit: told about records that did not become documents.
        cache_folder: where the local docs may keep what they collected.

    Yields:
        Documents as they are, not cleaned.

    Raises:
        DataError: a file is missing, unreadable, binary, damaged, or of unknown format.
    """
    formats_met: set[str] = set()
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
    for file, format_name in _source_files(source):
        if format_name not in formats_met:
            formats_met.add(format_name)
            _warn_of_ignored(source, format_name)
        yield from READERS[format_name](file, options, audit)


def open_corpus(config: CorpusConfig, audit: Audit, cache_folder: Path | None = None) -> Iterator[Document]:
    """Read and clean a corpus.

    Args:
        config: sources and cleaning.
        audit: filled while the stream is consumed; complete at its end.
        cache_folder: where the local docs may keep what they collected, for the next run.

    Yields:
        Clean documents, in the order of the sources.

    Raises:
        DataError: a source cannot be read, or nothing was read, or nothing was left.
    """
    documents = (
        document for source in config.sources for document in read_source(source, audit, cache_folder)
    )
    yield from clean_documents(documents, cleaning_steps(config), audit)
    if audit.documents_kept:
        return
    names = ", ".join(", ".join(source.paths) for source in config.sources)
    if not audit.documents_read or set(audit.drops) == {"empty_file"}:
        raise DataError(f"{names}: holds no documents; check that the files are not empty")
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(audit.drops.items()))
    raise DataError(
        f"{names}: none of {audit.documents_read} documents was kept (dropped: {drops}); "
        "check the text and the cleaning settings"
    )


def corpus_fingerprint(config: CorpusConfig) -> str:
    """Name what a corpus would give: its settings and the content of every source.

    Every source file is read once for its SHA-256, so the name is the same wherever the files lie.

    Returns:
        32 hexadecimal digits.

    Raises:
        DataError: a source cannot be read.
    """
    sources = []
    for source in config.sources:
        settings = {**source.model_dump(mode="json", exclude={"path"}), "name": source.label}
        settings["files"] = [
            environment_fingerprint()
            if format_name == LOCAL_DOCS
            else [file.label, format_name, _file_digest(file)]
            for file, format_name in _source_files(source)
        ]
        sources.append(settings)
    cleaning = config.model_dump(mode="json", exclude={"sources"})
    return fingerprint({"rules": _RULES_VERSION, "sources": sources, "cleaning": cleaning})


def _source_files(source: SourceConfig) -> Iterator[tuple[SourceFile, str]]:
    """A source's files with the names of their formats."""
    if source.is_local_docs:
        yield SourceFile(Path(LOCAL_DOCS), LOCAL_DOCS), LOCAL_DOCS
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


def _warn_of_ignored(source: SourceConfig, format_name: str) -> None:
    """Say which settings that differ from their defaults mean nothing for a format."""
    for name in sorted(ALL_SETTINGS - HEEDED_SETTINGS[format_name]):
        value = getattr(source, name)
        if value != SourceConfig.model_fields[name].default:
            _log.warning("%s: %s is %r, which the format %s ignores", source.label, name, value, format_name)


def _file_digest(file: SourceFile) -> str:
    try:
        return sha256_file(file.path)
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror or error})") from error
