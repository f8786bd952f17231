"""The settings of `maskwright prepare`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config
from ..corpus import CorpusConfig

__all__ = ["MixtureConfig", "PrepareConfig", "TokenizerConfig", "TopicsConfig"]


class TokenizerConfig(Config):
    """Train a vocabulary, or take one."""

    kind: Literal["byte-level-bpe", "wordpiece"] = Field(
        "byte-level-bpe",
        description="what to train: byte-level BPE as RoBERTa has, or WordPiece as BERT has, which takes "
        "Chinese characters one by one",
    )
    vocab_size: int = Field(50_265, ge=261, description="entries in all, where it is trained")
    path: str | None = Field(
        None,
        description="a tokenizer to take instead of training one: a folder or a tokenizer.json, a folder "
        "with encoder.json, vocab.bpe and dict.txt (the ids of fairseq), or a vocab.txt of BERT",
    )
    sample_bytes: int = Field(200_000_000, ge=1, description="most bytes of text to train on, chosen by key")


class TopicsConfig(Config):
    """The labelled topic task of the documentation on this machine."""

    num_labels: int = Field(20, ge=2, description="packages to tell apart")
    train_per_label: int = Field(200, ge=1, description="most training examples of a package")
    test_per_label: int = Field(50, ge=1, description="most validation and most test examples of a package")


class MixtureConfig(Config):
    """How often the text of each source is seen; at most one of the three. Unset, each once an epoch."""

    weights: dict[str, float] | None = Field(
        None, description="share of the training tokens by source, in any unit; sources not named get none"
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="shares proportional to tokens to the power of 1/temperature: 1 is by size, more is more "
        "even between sources",
    )
    epochs: dict[str, float] | None = Field(
        None, description="times that a source is seen in one epoch of the whole; 1 for sources not named"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("weights", "temperature", "epochs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both set; keep one of them")
        return self


class PrepareConfig(Config):
    """Everything that decides a data folder."""

    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    mixture: MixtureConfig = MixtureConfig()
    validation_share: float = Field(
        0.01, gt=0, lt=1, description="share of documents held out, chosen by key"
    )
    sentences: bool = Field(
        False, description="also store where sentences end, as the sentence-pair input formats need it"
    )
    tokens_per_shard: int = Field(
        100_000_000,
        ge=1,
        description="about how many tokens a shard gets, counted as four bytes of text each",
    )
    split_bytes: int = Field(
        256_000_000, ge=1, description="uncompressed files larger than this are read in spans of this size"
    )
    keep_documents: bool = Field(
        False, description="also leave the clean documents, as documents/*.jsonl.zst"
    )
    seed: int = Field(0, ge=0, description="decides which documents are held out or sampled")
    topics: TopicsConfig | None = Field(None, description="also make the topic task of local-docs")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.topics is not None and not any(source.is_local_docs for source in self.corpus.sources):
            raise ValueError(
                "topics needs a source whose path is local-docs; remove topics or add the source"
            )
        labels = [source.label for source in self.corpus.sources]
        for name in (*(self.mixture.weights or {}), *(self.mixture.epochs or {})):
            if name not in labels:
                raise ValueError(
                    f'mixture names "{name}", which is no source (there are: {", ".join(labels)})'
                )
        return self
