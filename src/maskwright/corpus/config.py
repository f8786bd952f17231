"""The settings of a corpus: where its texts are, how to read them, how to clean them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config
from .dedup.config import ContaminationConfig, DeduplicationConfig
from .normalise import UnicodeForm
from .readers.reader import EncodingErrors, SplitDocuments
from .rules import RulesConfig
from .sources import source_name

__all__ = ["LOCAL_DOCS", "CorpusConfig", "SourceConfig", "SourceFormat"]

LOCAL_DOCS = "local-docs"

SourceFormat = Literal[
    "auto",
    "text",
    "markdown",
    "jsonl",
    "csv",
    "tsv",
    "parquet",
    "arrow",
    "warc",
    "wiki-extractor",
    "local-docs",
]
LocalSplit = Literal["train", "validation", "test"]


class SourceConfig(Config):
    """One source of texts."""

    path: str | tuple[str, ...] = Field(
        description="a file, a folder (read with all below it), a pattern such as data/**/*.jsonl.zst, a "
        "list of these, or the word local-docs: the documentation of Python and its installed packages"
    )
    name: str = Field(
        default="",
        description="name of the source in document ids and in the audit; by default from the path",
    )
    format: SourceFormat = Field(
        default="auto", description="format of the files; auto goes by suffix, compression aside"
    )
    text_field: str = Field(
        default="text",
        min_length=1,
        description="JSON field or table column that holds the text (column number from 0 without header)",
    )
    id_field: str | None = Field(
        default=None, description="JSON field or table column that holds the id; null counts lines instead"
    )
    header: bool = Field(default=True, description="whether the first row of a table names its columns")
    encoding_errors: EncodingErrors = Field(
        default="replace",
        description="bytes that are not UTF-8: strict stops, replace puts U+FFFD and counts, skip drops the "
        "record and counts; replace is the default, so that one bad byte never costs a document",
    )
    max_bad_lines: int = Field(
        default=100, ge=0, description="malformed lines to pass over in one file before stopping, a count"
    )
    split_documents: SplitDocuments = Field(
        default="file",
        description="what is one document in plain text: file, line, or block (lines between blank lines)",
    )
    splits: tuple[LocalSplit, ...] = Field(
        default=("train", "validation"),
        min_length=1,
        description="which parts of local-docs to take; the topic task is tested on test, which is "
        "therefore not among the defaults",
    )

    rules: RulesConfig | None = Field(
        default=None, description="cleaning and quality rules of this source; null takes those of the corpus"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.paths or not all(self.paths):
            raise ValueError("path is empty, expected a file, a folder, a pattern or local-docs")
        if LOCAL_DOCS in self.paths and len(self.paths) > 1:
            raise ValueError("local-docs cannot stand in a list of paths; give it a source of its own")
        if (self.format == LOCAL_DOCS) and not self.is_local_docs:
            raise ValueError(f"format is local-docs, but path is {self.path!r}; set path to local-docs")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The path or paths, always as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def is_local_docs(self) -> bool:
        """Whether this source is the documentation on this machine."""
        return self.paths == (LOCAL_DOCS,)

    @property
    def label(self) -> str:
        """The name, or the one made from the path."""
        return self.name or (LOCAL_DOCS if self.is_local_docs else source_name(self.paths))


class CorpusConfig(Config):
    """What a corpus is made of and how it is cleaned."""

    sources: tuple[SourceConfig, ...] = Field(
        default=(SourceConfig(path=LOCAL_DOCS),), min_length=1, description="where the texts are, in order"
    )
    unicode_form: UnicodeForm = Field(
        default="NFC", description="Unicode normal form: NFC, or NFKC to fold full-width letters and the like"
    )
    min_characters: int = Field(
        default=1, ge=1, description="shortest document to keep, in characters after normalising"
    )
    max_characters: int | None = Field(
        default=None, ge=1, description="longest document to keep, in characters; null sets no limit"
    )
    rules: RulesConfig = Field(
        default=RulesConfig(), description="cleaning and quality rules; a source may have its own"
    )
    deduplication: DeduplicationConfig = Field(
        default=DeduplicationConfig(), description="which repetitions are removed"
    )
    contamination: ContaminationConfig | None = Field(
        default=None, description="evaluation sets to keep out of the corpus; null looks for none"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        labels = [source.label for source in self.sources]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f'two sources are called "{label}"; set name on one of them')
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters is {self.max_characters}, below min_characters {self.min_characters}"
            )
        return self
