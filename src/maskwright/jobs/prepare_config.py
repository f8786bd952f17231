"""The settings of `maskwright prepare`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config
from ..corpus import CorpusConfig

__all__ = ["MixtureConfig", "PrepareConfig", "TokenizerConfig", "TopicsConfig", "WordsConfig"]


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
    extend: int = Field(
        0,
        ge=0,
        description="entries to learn from the text and add behind those of path, for a model that was "
        "trained with path and goes on with this text; byte-level BPE and WordPiece",
    )
    extend_min_count: int = Field(
        10, ge=1, description="how often a new entry must occur in the sample; fewer are added where few do"
    )

    @property
    def learns(self) -> bool:
        """Whether a sample of the text is needed."""
        return self.path is None or self.extend > 0

    @model_validator(mode="after")
    def _extends_a_path(self) -> Self:
        if self.extend and self.path is None:
            raise ValueError(
                f"extend is {self.extend}, but no path is given; set path to the tokenizer to extend, or "
                "raise vocab_size"
            )
        return self


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


class WordsConfig(Config):
    """Where words begin, for masking whole words of Chinese. Other words need nothing stored."""

    segmenter: Literal["none", "jieba", "dictionary", "spaces"] = Field(
        "none",
        description="what cuts Chinese into words: jieba; the words of dictionary alone; spaces, which are "
        "then taken out of the text; or none, which stores nothing and leaves each character a word",
    )
    dictionary: str | None = Field(
        None,
        description="a UTF-8 list of words, one a line, each perhaps with its frequency (a count) behind it; "
        "jieba adds them to its own",
    )

    @model_validator(mode="after")
    def _dictionary_fits(self) -> Self:
        if self.dictionary is None and self.segmenter == "dictionary":
            raise ValueError("segmenter is dictionary, but no dictionary is given; set the path of a list")
        if self.dictionary is not None and self.segmenter not in ("jieba", "dictionary"):
            raise ValueError(
                f"dictionary is given, but segmenter is {self.segmenter}, which has no use for it; "
                "set segmenter to dictionary or jieba"
            )
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
    words: WordsConfig = WordsConfig()
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
