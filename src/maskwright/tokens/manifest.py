"""What a folder of token shards says about itself.

`manifest.json` is written last, so a folder that has one is whole. It names every file with its
length and SHA-256, the tokenizer that made the ids, and where the text came from.
"""

from __future__ import annotations

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
    """Some documents: their token ids, each document closed by `</s>`, and where each one ends."""

    num_tokens: int = Field(ge=0, description="tokens, the closing ones included")
    num_documents: int = Field(ge=0)
    tokens: FileEntry
    documents: FileEntry

    def check(self, folder: Path, *, content: bool) -> None:
        """Refuse the shard if a file is missing or has another length (or content). Raises `ShardError`."""
        for entry in (self.tokens, self.documents):
            entry.check(folder, ShardError, REMEDY, content=content)


class Split(Config):
    """The shards of one part of the data, in order."""

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


class TokenizerEntry(Config):
    """Which vocabulary the ids belong to."""

    fingerprint: str
    vocab_size: int


class Manifest(Config):
    """Content of `manifest.json`."""

    tokenizer: TokenizerEntry
    dtype: str = Field(pattern="^uint(16|32)$", description="little-endian type of the token files")
    splits: dict[str, Split]
    token_counts: FileEntry = Field(description="int64 count of every id in the training split")
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        width = 2 if self.dtype == "uint16" else 4
        for shard in (shard for split in self.splits.values() for shard in split.shards):
            for entry, number, size in (
                (shard.tokens, shard.num_tokens, width),
                (shard.documents, shard.num_documents, 8),
            ):
                if entry.num_bytes != number * size:
                    raise ValueError(
                        f"{entry.path} has {entry.num_bytes} bytes, {number} entries need {number * size}"
                    )
        return self

    @property
    def fingerprint(self) -> str:
        """Name of the data by its content: vocabulary and every checksum, wherever it lies."""
        sums = {
            name: [
                split.num_text_bytes,
                *(shard.tokens.sha256 + shard.documents.sha256 for shard in split.shards),
            ]
            for name, split in self.splits.items()
        }
        return fingerprint([self.tokenizer.model_dump(), self.dtype, sums, self.token_counts.sha256])


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish a folder of shards; the last thing written."""
    splits = {
        name: {"num_tokens": split.num_tokens, "num_documents": split.num_documents, **split.model_dump()}
        for name, split in manifest.splits.items()
    }
    values = {"format_version": manifest.format_version, "fingerprint": manifest.fingerprint}
    write_json(folder / FILE_NAME, {**values, **manifest.model_dump(), "splits": splits})


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
        claimed = values.pop("fingerprint", None)
        for split in values.get("splits", {}).values():
            split.pop("num_tokens", None)
            split.pop("num_documents", None)
        manifest = parse_config(Manifest, values, str(path))
    except (ConfigError, DataError, AttributeError, TypeError) as error:
        raise ShardError(f"{error}; prepare the data again") from error
    if manifest.fingerprint != claimed:
        raise ShardError(
            f"{path}: was changed after it was written (fingerprint {claimed}); prepare the data again"
        )
    return manifest
