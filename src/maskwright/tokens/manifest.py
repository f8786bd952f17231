"""What a folder of token shards says about itself.

`manifest.json` is written last, so a folder that has one is whole. It names every file with its
length and SHA-256, the tokenizer that made the ids, where the text came from, and how often each
source occurs in an epoch. A checksum over all of it finds any change. Opening one of ten thousand
shards, a trillion tokens, takes a fraction of a second: nothing but this file is read.
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ..core.config import Config, parse_config
from ..core.errors import ConfigError, DataError, ShardError
from ..core.files import read_json, write_json
from ..core.fingerprint import fingerprint
from ..core.inventory import FileEntry

__all__ = ["Manifest", "Shard", "Split", "TokenizerEntry", "load_manifest", "save_manifest"]

FILE_NAME = "manifest.json"
REMEDY = "prepare the data again or restore the file"


class Shard(Config):
    """Some documents of one source: their token ids, each document closed by `</s>`, and its end."""

    num_tokens: int = Field(ge=0, description="tokens, the closing ones included")
    num_documents: int = Field(ge=0)
    num_sentences: int = Field(0, ge=0)
    num_words: int = Field(0, ge=0, description="words, closing ids left out; 0 where none are stored")
    source: str = Field("", description="where the documents come from; empty where there is one source")
    tokens: FileEntry
    documents: FileEntry
    sentences: FileEntry | None = Field(None, description="uint64 ends of sentences, closing ids left out")
    words: FileEntry | None = Field(
        None, description="a bit a token, low bits first: whether it begins a word; closing ids do"
    )

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the shard."""
        files = (self.tokens, self.documents, self.sentences, self.words)
        return tuple(entry for entry in files if entry is not None)

    def check_counts(self, token_bytes: int) -> None:
        """Refuse a shard whose numbers and files do not fit; `ValueError` names the file.

        Args:
            token_bytes: bytes of a token.
        """
        sizes = (
            (self.tokens, self.num_tokens, token_bytes * self.num_tokens),
            (self.documents, self.num_documents, 8 * self.num_documents),
            (self.sentences, self.num_sentences, 8 * self.num_sentences),
            (self.words, self.num_tokens, -(-self.num_tokens // 8)),
        )
        for entry, number, needed in sizes:
            if entry is not None and entry.num_bytes != needed:
                raise ValueError(f"{entry.path} has {entry.num_bytes} bytes, {number} entries need {needed}")

    def check(self, folder: Path, *, content: bool) -> None:
        """Refuse the shard if a file is missing or has another length (or content). Raises `ShardError`."""
        for entry in self.files:
            entry.check(folder, ShardError, REMEDY, content=content)


class Split(Config):
    """The shards of one part of the data, in order; those of one source lie together."""

    shards: tuple[Shard, ...]
    num_text_bytes: int = Field(ge=0, description="UTF-8 bytes of the text")

    @property
    def num_tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def tokens_by_source(self) -> dict[str, int]:
        """Tokens of each source, in the order of the shards."""
        groups = groupby(self.shards, key=lambda shard: shard.source)
        return {source: sum(shard.num_tokens for shard in shards) for source, shards in groups}


class TokenizerEntry(Config):
    """Which vocabulary the ids belong to."""

    fingerprint: str
    vocab_size: int


class Manifest(Config):
    """Content of `manifest.json`. Version 1 knew neither sources nor the checksum."""

    format_version = 2

    tokenizer: TokenizerEntry
    dtype: str = Field(pattern="^uint(16|32)$", description="little-endian type of the token files")
    splits: dict[str, Split]
    repeats: dict[str, float] = Field(
        default_factory=dict,
        description="how often the tokens of a source occur in an epoch of training; 1 where not named",
    )
    token_counts: FileEntry = Field(description="int64 count of every id in the training split")
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        for shard in (shard for split in self.splits.values() for shard in split.shards):
            shard.check_counts(2 if self.dtype == "uint16" else 4)
        return self

    @model_validator(mode="after")
    def _sources_lie_together(self) -> Self:
        for name, split in self.splits.items():
            seen: set[str] = set()
            for source, _ in groupby(shard.source for shard in split.shards):
                if source in seen:
                    raise ValueError(
                        f"split {name!r} has shards of other sources between those of {source!r}"
                    )
                seen.add(source)
        wrong = next((source for source, number in self.repeats.items() if number < 0), None)
        if wrong is not None:
            raise ValueError(f"repeats of {wrong!r} is {self.repeats[wrong]}, expected 0 or more")
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Name of the data by its content: vocabulary, every checksum and the mixture, wherever it lies."""
        sums = {
            name: [
                split.num_text_bytes,
                *("".join(entry.sha256 for entry in shard.files) for shard in split.shards),
            ]
            for name, split in self.splits.items()
        }
        # Data of version 1 keeps its name, so checkpoints made with it go on.
        mixture = [{name: split.tokens_by_source for name, split in self.splits.items()}, self.repeats]
        is_mixed = self.repeats or any(any(split.tokens_by_source) for split in self.splits.values())
        content = [self.tokenizer.model_dump(), self.dtype, sums, self.token_counts.sha256]
        return fingerprint([*content, mixture] if is_mixed else content)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish a folder of shards; the last thing written."""
    splits = {
        name: {
            "num_tokens": split.num_tokens,
            "num_documents": split.num_documents,
            **split.model_dump(exclude_defaults=True),
        }
        for name, split in manifest.splits.items()
    }
    values = {"format_version": manifest.format_version, "fingerprint": manifest.fingerprint}
    values |= {**manifest.model_dump(exclude={"splits"}), "splits": splits}
    values = json.loads(json.dumps(values))  # keys and numbers as they will be read
    write_json(folder / FILE_NAME, {**values, "checksum": fingerprint(values)})


def load_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        ShardError: it is missing, damaged, or does not describe itself.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ShardError(f"{folder}: has no {FILE_NAME}, so no finished data; run maskwright prepare first")
    try:
        values = read_json(path)
        checksum = values.pop("checksum", None)
        found = fingerprint(values)
        claimed = values.pop("fingerprint", None)
        for split in values.get("splits", {}).values():
            split.pop("num_tokens", None)
            split.pop("num_documents", None)
        is_whole = checksum == found or (checksum is None and values.get("format_version") == 1)
        manifest = parse_config(Manifest, values, str(path))
    except (ConfigError, DataError, AttributeError, TypeError, RecursionError) as error:
        raise ShardError(f"{error}; prepare the data again") from error
    if manifest.fingerprint != claimed or not is_whole:
        raise ShardError(
            f"{path}: was changed after it was written (fingerprint {claimed}); prepare the data again"
        )
    return manifest
