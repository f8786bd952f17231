"""Stage `encode`: surviving documents of some parts to one token shard for each split.

Cost: reading and encoding, about a third of the time of cleaning. Memory: one batch of text and its
ids, and the ids of the held-out documents of the task.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core.inventory import FileEntry
from ...corpus import Audit, Document
from ...corpus.document import utf8_length
from ...corpus.parts import write_part
from ...corpus.runners import Stage, TaskResult
from ...corpus.stages import CleanPart, Verdicts
from ...tokens.segmentation import CutText, mark_words
from ...tokens.sentences import sentence_ends, split_sentences
from ...tokens.shard_writing import EncodedDocuments, WrittenShard, write_array, write_shard
from ...tokens.token_statistics import TokenStatistics
from ...tokens.tokenizer import Tokenizer
from ..prepare_config import PrepareConfig
from .cutting import identify_words, open_cutter
from .surviving import is_validation, surviving_documents
from .vocabulary import open_tokenizer

__all__ = ["SPLITS", "Group", "encode_stage", "group_parts"]

SPLITS = ("train", "validation")
BYTES_PER_TOKEN = 4
_BATCH_CHARACTERS = 1 << 22
_SHARDS_BEFORE_FULL = 256
_CHECKED_TEXTS = 20
_CHECKED_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive parts of one source that become one shard of each split."""

    source: str
    parts: tuple[CleanPart, ...]

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text in all parts."""
        return sum(part.text_bytes for part in self.parts)


def group_parts(parts: Sequence[CleanPart], tokens_per_shard: int) -> list[Group]:
    """Gather parts until a shard is full or the source ends.

    Shards of a small corpus are smaller, so that there is work for many workers: a part or more each,
    and some hundreds in all before they grow to their full size.

    Args:
        parts: of the corpus, in order.
        tokens_per_shard: a shard is full at four times so many bytes of text.
    """
    total = sum(part.text_bytes for part in parts)
    full = min(BYTES_PER_TOKEN * tokens_per_shard, total // _SHARDS_BEFORE_FULL)
    groups: list[list[CleanPart]] = []
    filled = 0
    for part in parts:
        if not groups or groups[-1][0].source != part.source or filled >= full:
            groups.append([])
            filled = 0
        groups[-1].append(part)
        filled += part.text_bytes
    return [Group(group[0].source, tuple(group)) for group in groups]


@dataclass(frozen=True)
class _Encode:
    folder: Path
    groups: tuple[Group, ...]
    verdicts: Verdicts
    config: PrepareConfig

    def __call__(self, number: int) -> TaskResult:
        tokenizer = open_tokenizer(self.folder)
        account = _Account(tokenizer, self.config)
        group = self.groups[number]
        with contextlib.ExitStack() as stack:
            keep = self._keep(stack, number) if self.config.keep_documents else None
            documents = self._documents(group, account, keep)
            train = self._write("train", number, group, account.train(documents), tokenizer)
        validation = self._write("validation", number, group, account.held_out(), tokenizer)
        counts = write_array(self.folder, f"work/encode/counts-{number:05d}.bin", train.token_counts)
        shards = {"train": train.shard, "validation": validation.shard}
        values = {
            "shards": {split: shard.model_dump(mode="json") for split, shard in shards.items()},
            "text_bytes": account.text_bytes,
            "token_counts": counts.path,
            "audit": account.audit.state(),
            "statistics": account.statistics.state(),
            "fast": account.is_fast,
        }
        files = [counts, *(file for shard in shards.values() for file in shard.files)]
        if self.config.keep_documents:
            path = _documents_path(number)
            size = (self.folder / path).stat().st_size
            files.append(FileEntry(path=path, num_bytes=size, sha256=""))
        return TaskResult(values, tuple(files))

    def _documents(
        self, group: Group, account: _Account, keep: Callable[[Document], None] | None
    ) -> Iterator[Document]:
        for part in group.parts:
            for document in surviving_documents(self.folder, part, self.verdicts, account.audit):
                if keep is not None:
                    keep(document)
                yield document

    def _keep(self, stack: contextlib.ExitStack, number: int) -> Callable[[Document], None]:
        return stack.enter_context(write_part(self.folder, _documents_path(number))).add

    def _write(
        self,
        split: str,
        number: int,
        group: Group,
        batches: Iterable[EncodedDocuments],
        tokenizer: Tokenizer,
    ) -> WrittenShard:
        return write_shard(
            self.folder,
            split,
            number,
            batches,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            source=group.source,
            sentences=self.config.sentences,
            words=self.config.words.segmenter != "none",
        )


class _Account:
    """Encodes the documents of one task, and counts what becomes of them."""

    def __init__(self, tokenizer: Tokenizer, config: PrepareConfig) -> None:
        self._tokenizer, self._config = tokenizer, config
        self._cut = open_cutter(config.words)
        self.audit = Audit()
        self.statistics = TokenStatistics(tokenizer)
        self.text_bytes = dict.fromkeys(SPLITS, 0)
        self.is_fast = True
        self._checked = False
        self._held_out: list[Document] = []
        self._held_out_characters = 0
        self._encoded: list[EncodedDocuments] = []

    def train(self, documents: Iterable[Document]) -> Iterator[EncodedDocuments]:
        """Batches of documents of the training split; the others are put aside."""
        pending: list[Document] = []
        characters = 0
        for document in documents:
            if is_validation(document, self._config.seed, self._config.validation_share):
                self._put_aside(document)
                continue
            pending.append(document)
            characters += len(document.text)
            if characters >= _BATCH_CHARACTERS:
                yield self._encode(pending, "train")
                pending, characters = [], 0
        if pending:
            yield self._encode(pending, "train")

    def held_out(self) -> list[EncodedDocuments]:
        """What was put aside, after the training documents have passed."""
        if self._held_out:
            self._encoded.append(self._encode(self._held_out, "validation"))
            self._held_out = []
        return self._encoded

    def _put_aside(self, document: Document) -> None:
        self._held_out.append(document)
        self._held_out_characters += len(document.text)
        if self._held_out_characters >= _BATCH_CHARACTERS:
            self._encoded.append(self._encode(self._held_out, "validation"))
            self._held_out, self._held_out_characters = [], 0

    def _encode(self, documents: Sequence[Document], split: str) -> EncodedDocuments:
        cut_texts: list[CutText] = []
        if self._cut is not None:
            cut_texts = [self._cut(document.text) for document in documents]
            pairs = zip(documents, cut_texts, strict=True)
            documents = [replace(document, text=cut_text.text) for document, cut_text in pairs]
        texts = [document.text for document in documents]
        if not self._checked:
            sample = [text[:_CHECKED_CHARACTERS] for text in texts[:_CHECKED_TEXTS]]
            self.is_fast, self._checked = self._tokenizer.check_fast_path(sample), True
        ids, counts = self._tokenizer.encode_batch(texts)
        sizes = [utf8_length(text) for text in texts]
        for document, size in zip(documents, sizes, strict=True):
            self.audit.count_kept(document, size)
        self.text_bytes[split] += sum(sizes)
        self._count_languages(documents, sizes, ids, counts)
        sentences = self._sentences(documents, ids, counts) if self._config.sentences else None
        words = mark_words(self._tokenizer, ids, counts, cut_texts) if self._cut is not None else None
        return EncodedDocuments(ids, counts, sentences, words)

    def _count_languages(
        self, documents: Sequence[Document], sizes: Sequence[int], ids: Any, counts: Any
    ) -> None:
        languages = [document.meta.get("language", "") for document in documents]
        if len(set(languages)) == 1:
            self.statistics.add(languages[0], sum(sizes), ids)
            return
        rows = np.split(ids, np.cumsum(counts)[:-1])
        for language in dict.fromkeys(languages):
            chosen = [number for number, name in enumerate(languages) if name == language]
            found = np.concatenate([rows[number] for number in chosen])
            self.statistics.add(language, sum(sizes[number] for number in chosen), found)

    def _sentences(self, documents: Sequence[Document], ids: Any, counts: Any) -> Any:
        """Where sentences end among the ids of the batch."""
        stops = np.cumsum(counts)
        ends = []
        for document, stop, count in zip(documents, stops.tolist(), counts.tolist(), strict=True):
            spans = split_sentences(document.text, document.meta.get("language"))
            found = sentence_ends(self._tokenizer, ids[stop - count : stop], document.text, spans)
            ends.append(stop - count + found)
        return np.concatenate(ends) if ends else np.empty(0, np.int64)


def _documents_path(number: int) -> str:
    return f"documents/part-{number:05d}.jsonl.zst"


def encode_stage(
    config: PrepareConfig,
    folder: Path,
    parts: Sequence[CleanPart],
    verdicts: Verdicts,
    request: Any,
) -> Stage:
    """The stage that writes token shards, one task a group of parts.

    Args:
        config: has the size of shards and the share of held-out documents.
        folder: the output folder.
        parts: of the cleaned corpus.
        verdicts: what deduplication decided.
        request: names parts, verdicts and tokenizer by their content.
    """
    groups = group_parts(parts, config.tokens_per_shard)
    own: list[Any] = [config.validation_share, config.seed, config.sentences, config.keep_documents]
    words = identify_words(config.words)
    own += [words] if words else []  # so that tasks without words stay known by their old names
    return Stage(
        name="encode",
        folder=folder,
        request=[request, *own],
        requests=[[part.path for part in group.parts] for group in groups],
        work=_Encode(folder, tuple(groups), verdicts, config),
        weights=[group.text_bytes for group in groups],
    )
