"""Raw text to a data folder: clean documents, a tokenizer, token shards, and the audit.

    <output>/config.yaml      resolved settings
    <output>/documents/       clean documents, compressed
    <output>/tokenizer/       vocabulary, as `AutoTokenizer` reads it
    <output>/train/, validation/   shards
    <output>/topics/          the labelled topic task, where asked for
    <output>/audit.json       what came in, what was dropped and why
    <output>/manifest.json    published last; a folder with it is whole

Each stage is published whole and is not repeated when the same command runs again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ..core.config import Config, dump_config
from ..core.errors import DataError, ShardError, TokenizerError
from ..core.files import read_json, storage_errors, write_json, write_text
from ..core.fingerprint import fingerprint
from ..core.keyed import derive_key
from ..core.log import get_logger
from ..core.progress import track
from ..corpus import Audit, CleanStore, CorpusConfig, corpus_fingerprint, open_corpus, read_clean, write_clean
from ..corpus.document import Document
from ..tokens.manifest import Manifest, TokenizerEntry, load_manifest, save_manifest
from ..tokens.shards import ShardWriter, open_split, write_array
from ..tokens.tokenizer import Tokenizer
from .outputs import claim_output

__all__ = ["PrepareConfig", "TokenizerConfig", "TopicsConfig", "prepare_data"]

log = get_logger(__name__)
_BATCH_CHARACTERS = 1 << 22
_UNIT = 1 << 32
_SPLITS = ("train", "validation")
_TRAINED = "trained.json"


class TokenizerConfig(Config):
    """Train a vocabulary, or take one."""

    vocab_size: int = Field(50_265, ge=261, description="entries in all, where it is trained")
    path: str | None = Field(None, description="folder of a tokenizer to take instead of training one")
    sample_bytes: int = Field(200_000_000, ge=1, description="most bytes of text to train on, chosen by key")


class TopicsConfig(Config):
    """The labelled topic task of the documentation on this machine."""

    num_labels: int = Field(20, ge=2, description="packages to tell apart")
    train_per_label: int = Field(200, ge=1, description="most training examples of a package")
    test_per_label: int = Field(50, ge=1, description="most validation and most test examples of a package")


class PrepareConfig(Config):
    """Everything that decides a data folder."""

    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    validation_share: float = Field(
        0.01, gt=0, lt=1, description="share of documents held out, chosen by key"
    )
    tokens_per_shard: int = Field(100_000_000, ge=1, description="a shard is closed at so many tokens")
    seed: int = Field(0, ge=0, description="decides which documents are held out or sampled")
    topics: TopicsConfig | None = Field(None, description="also make the topic task of local-docs")

    @model_validator(mode="after")
    def _topics_have_a_source(self) -> Self:
        if self.topics is not None and not any(source.is_local_docs for source in self.corpus.sources):
            raise ValueError(
                "topics needs a source whose path is local-docs; remove topics or add the source"
            )
        return self


def prepare_data(
    config: PrepareConfig, folder: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Make a data folder, or finish one.

    Args:
        config: what to do.
        folder: where.
        resume: go on with what is there.
        overwrite: start again.

    Returns:
        Counts: documents, tokens, bytes per token, drops.

    Raises:
        DataError: a source cannot be used, or nothing is left of it.
        OutputExistsError: the folder is occupied.
        StorageError: the storage refused; what is finished stays.
    """
    log.info("naming the sources")
    source_name = corpus_fingerprint(config.corpus)
    claim_output(config, folder, resume=resume, overwrite=overwrite)
    done = _finished(folder, config, source_name)
    if done is not None:
        log.info("%s: is finished already", folder)
        return done
    audit = Audit()
    store = write_clean(
        open_corpus(config.corpus, audit, folder / "documents"),
        folder / "documents",
        fingerprint=source_name,
        audit=audit,
    )
    log.info("%s documents, %.1f MB", f"{store.documents:,}", store.text_bytes / 1e6)
    tokenizer = _tokenizer(config, folder, store)
    log.info("%s vocabulary entries", f"{tokenizer.vocab_size:,}")
    if config.topics is not None:
        _write_topics(config.topics, folder, config.seed)
    manifest = _write_shards(config, folder, store, tokenizer, source_name)
    return _summary(folder, manifest)


def _finished(folder: Path, config: PrepareConfig, source_name: str) -> dict[str, Any] | None:
    """The result of an earlier start, if it is whole and made of the same."""
    try:
        manifest = load_manifest(folder)
        for split in manifest.splits:
            open_split(folder, split)
        tokenizer = Tokenizer.load(folder / "tokenizer")
    except (ShardError, TokenizerError) as error:
        log.debug("%s", error)
        return None
    same = manifest.provenance.get("request") == _request(config, source_name)
    if not same or tokenizer.fingerprint != manifest.tokenizer.fingerprint:
        return None
    return _summary(folder, manifest)


def _request(config: PrepareConfig, source_name: str) -> str:
    return fingerprint([dump_config(config), source_name])


def is_validation(document: Document, config: PrepareConfig) -> bool:
    """Whether a document is held out: as its source says, else by a key of its id."""
    split = document.meta.get("split")
    if split is not None:
        return split == "validation"
    return derive_key(config.seed, "validation", document.id) % _UNIT < config.validation_share * _UNIT


def _tokenizer(config: PrepareConfig, folder: Path, store: CleanStore) -> Tokenizer:
    if config.tokenizer.path is not None:
        tokenizer = Tokenizer.load(Path(config.tokenizer.path))
        tokenizer.save(folder / "tokenizer")
        return Tokenizer.load(folder / "tokenizer")
    request = fingerprint(
        [config.tokenizer.model_dump(), config.seed, config.validation_share, store.fingerprint]
    )
    done = _trained(folder / "tokenizer", request)
    if done is not None:
        return done
    log.info("training a tokenizer of %d entries", config.tokenizer.vocab_size)
    Tokenizer.train(_sample(config, store), config.tokenizer.vocab_size).save(folder / "tokenizer")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    write_json(folder / "tokenizer" / _TRAINED, {"request": request, "fingerprint": tokenizer.fingerprint})
    return tokenizer


def _trained(folder: Path, request: str) -> Tokenizer | None:
    """The tokenizer of an earlier start, if it was trained for the same and not changed since."""
    try:
        marker = read_json(folder / _TRAINED)
        tokenizer = Tokenizer.load(folder)
    except (DataError, TokenizerError):
        return None
    return tokenizer if marker == {"request": request, "fingerprint": tokenizer.fingerprint} else None


def _sample(config: PrepareConfig, store: CleanStore) -> Iterator[str]:
    """Training texts up to the asked bytes: all of them, or a share chosen by key."""
    share = min(1.0, config.tokenizer.sample_bytes / max(1, store.text_bytes))
    taken = 0
    for document in track(read_clean(store.folder), "tokenizer sample", store.documents, "documents"):
        chosen = derive_key(config.seed, "sample", document.id) % _UNIT < share * _UNIT
        if chosen and not is_validation(document, config):
            taken += 1
            yield document.text
    if not taken:
        raise DataError(
            f"{store.folder}: has {store.documents} documents, none left to train a tokenizer on; "
            "add text or raise tokenizer.sample_bytes"
        )


def _write_shards(
    config: PrepareConfig, folder: Path, store: CleanStore, tokenizer: Tokenizer, source_name: str
) -> Manifest:
    _discard_shards(folder)
    writers = {split: ShardWriter(folder, split, tokenizer, config.tokens_per_shard) for split in _SPLITS}
    pending: dict[str, list[str]] = {split: [] for split in writers}
    sizes = dict.fromkeys(writers, 0)
    checked = False
    for document in track(read_clean(store.folder), "encoding", store.documents, "documents"):
        split = "validation" if is_validation(document, config) else "train"
        pending[split].append(document.text)
        sizes[split] += len(document.text)
        if sizes[split] >= _BATCH_CHARACTERS:
            checked = checked or _check(tokenizer, pending[split])
            writers[split].add(pending[split])
            pending[split], sizes[split] = [], 0
    for split, texts in pending.items():
        if texts:
            checked = checked or _check(tokenizer, texts)
            writers[split].add(texts)
    splits = {split: writer.finish() for split, writer in writers.items()}
    for split, part in splits.items():
        if not part.num_documents:
            raise DataError(
                f"{folder}: the {split} split got none of {store.documents} documents; "
                "add documents or change validation_share"
            )
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size),
        dtype=writers["train"].dtype.name,
        splits=splits,
        token_counts=write_array(folder, "token_counts.bin", writers["train"].token_counts),
        provenance={"request": _request(config, source_name), "sources": source_name},
    )
    num_bytes = sum(part.num_text_bytes for part in splits.values())
    num_tokens = sum(part.num_tokens for part in splits.values())
    audit = {**store.audit, "bytes_per_token": num_bytes / max(1, num_tokens), "num_tokens": num_tokens}
    write_json(folder / "audit.json", audit)
    save_manifest(folder, manifest)
    return manifest


def _discard_shards(folder: Path) -> None:
    """Remove the shards of an earlier start, and first of all what says that they are whole."""
    with storage_errors(folder):
        (folder / "manifest.json").unlink(missing_ok=True)
        for split in _SPLITS:
            if (folder / split).exists():
                shutil.rmtree(folder / split)


def _check(tokenizer: Tokenizer, texts: list[str]) -> bool:
    """Compare the fast encoder with the reference on the first texts of the corpus, once."""
    tokenizer.check_fast_path([text[:10_000] for text in texts[:20]])
    return True


def _write_topics(config: TopicsConfig, folder: Path, seed: int) -> None:
    from ..corpus.local_docs import load_modules, topic_examples

    limits: Mapping[str, int] = {
        "train": config.train_per_label,
        "validation": config.test_per_label,
        "test": config.test_per_label,
    }
    examples = topic_examples(
        load_modules(folder / "documents"), num_labels=config.num_labels, per_label=limits, seed=seed
    )
    for split, rows in examples.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "topics" / f"{split}.jsonl", lines)
        log.info("topics: %d %s examples", len(rows), split)


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    audit = read_json(folder / "audit.json")
    return {
        "output": str(folder),
        "documents_read": audit["documents_read"],
        "documents_kept": audit["documents_kept"],
        "drops": audit["drops"],
        "vocab_size": manifest.tokenizer.vocab_size,
        "train_tokens": manifest.splits["train"].num_tokens,
        "validation_tokens": manifest.splits["validation"].num_tokens,
        "bytes_per_token": audit["bytes_per_token"],
        "fingerprint": manifest.fingerprint,
    }
