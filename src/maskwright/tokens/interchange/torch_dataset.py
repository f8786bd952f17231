"""A split as a `torch.utils.data.Dataset`, for trainers that bring a loop of their own.

Item `i` of epoch `e` is a sample of the stream that our own loop reads, in the same order; it carries
the positions of its tokens, from which a collator makes the same masks (`objectives/hf_collator.py`). An
item is no dictionary: the Trainer of Hugging Face drops from dictionaries what the model does not take.

Costs what the stream costs: a lookup of some hundred samples at once, then the bytes of a sample. Items in
turn are therefore cheap, and random ones dear on large data; the order is random as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ...core.errors import ConfigError
from ..formats import FormatConfig
from ..shards import open_split
from ..stream import SampleStream
from ..tokenizer import Tokenizer

__all__ = ["PackedDataset", "PackedSample"]

_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedSample:
    """One sample before masking.

    Attributes:
        ids: token ids with their specials; int64, (S,).
        positions: where each token stands in the split, -1 for added specials; int64, (S,).
        epoch: epoch of the sample, counted for its own source.
        token_types: 1 from the first token of a second part on, else 0; int64, (S,), None where samples
            have one part.
        next_label: 0 where the second part follows the first, 1 where it is a random one, None where
            samples have one part.
        source: names the split, as `PackedDataset.source` does.
        fixed: whether its masks are to stay the same in every epoch, as evaluation needs.
    """

    ids: _Int64
    positions: _Int64
    epoch: int
    token_types: _Int64 | None
    next_label: int | None
    source: str
    fixed: bool


class PackedDataset(Dataset[PackedSample]):
    """The samples of one split, packed as in our own pretraining.

    Map style: `len` is the number of samples of an epoch, or of `epochs` of them. It may be pickled and
    sent to workers; each opens the files for itself. Read it in turn (no shuffling sampler): the order is
    random already, and the same as that of our own loop.

    Args:
        folder: a data folder made by `maskwright prepare`.
        sequence_length: most tokens of a sample, its specials included.
        split: name of the split.
        seed: decides the order.
        shuffle: False is for evaluation: samples in the order of the corpus, with masks that never change.
        format: what a sample is made of.
        separators: how many `</s>` stand between two parts: 2 as in RoBERTa, 1 as in BERT.
        epochs: how many epochs `len` covers, each in an order of its own. `set_epoch`, which trainers call,
            goes from one such length to the next; it reaches workers that are already at work.

    Attributes:
        tokenizer: the vocabulary of the data.
        source: a name for the split: fingerprint of the data and name of the split.

    Raises:
        ConfigError: `epochs` is below 1, or a sample does not fit into `sequence_length`.
        DataError: the split gives no sample.
        ShardError: the folder is unfinished, damaged, or has no such split.
    """

    def __init__(
        self,
        folder: str | Path,
        sequence_length: int,
        *,
        split: str = "train",
        seed: int = 0,
        shuffle: bool = True,
        format: FormatConfig = FormatConfig(),  # noqa: A002, B008 - as the config calls it; it is frozen
        separators: int = 2,
        epochs: int = 1,
    ) -> None:
        if epochs < 1:
            raise ConfigError(f"epochs is {epochs}, expected at least 1: how often the samples come round")
        self._setting: dict[str, Any] = {
            "folder": Path(folder),
            "sequence_length": sequence_length,
            "split": split,
            "seed": seed,
            "shuffle": shuffle,
            "format": format,
            "separators": separators,
        }
        self.epochs = epochs
        # In shared memory, so that workers that outlive an epoch learn of the next one.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._open(verify=None)

    def _open(self, verify: bool | None) -> None:
        setting = self._setting
        data = open_split(setting["folder"], setting["split"], verify=verify)
        self.tokenizer = Tokenizer.load(setting["folder"] / "tokenizer")
        self.stream = SampleStream(
            data,
            setting["sequence_length"],
            self.tokenizer.bos_id,
            self.tokenizer.eos_id,
            setting["seed"],
            shuffle=setting["shuffle"],
            format=setting["format"],
            separators=setting["separators"],
        )
        self.source = f"{data.manifest.fingerprint}/{data.split}"

    def __getstate__(self) -> dict[str, Any]:
        return {"_setting": self._setting, "epochs": self.epochs, "_epoch": self._epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Whoever sent it has compared the checksums.
        self._open(verify=False)

    def __len__(self) -> int:
        return self.stream.samples_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """The epoch that samples are of, as `set_epoch` told it."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; evaluation data has only one.

        Args:
            epoch: counted from 0; with `epochs` above 1, how often all of them are over.
        """
        self._epoch.fill_(epoch if self._setting["shuffle"] else 0)

    def __getitem__(self, index: int) -> PackedSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[PackedSample]:
        """Several samples; those that follow each other are read at once.

        Raises:
            IndexError: there is no such sample.
        """
        size, epoch = len(self), self.epoch
        for index in indices:
            if not -size <= index < size:
                raise IndexError(f"sample {index} lies outside 0 to {size}")
        found: list[PackedSample] = []
        while len(found) < len(indices):
            first, count = indices[len(found)] % size, 1
            rest = indices[len(found) :]
            while count < len(rest) and rest[count] == first + count:
                count += 1
            found += self._read(first + epoch * size, count)
        return found

    def _read(self, first: int, count: int) -> list[PackedSample]:
        batch = self.stream.batch(first, count)
        cuts = np.cumsum(batch.lengths)[:-1]
        types: list[Any] = [None] * count
        if batch.token_types is not None:
            types = np.split(batch.token_types, cuts)
        labels = [None] * count if batch.next_labels is None else batch.next_labels.tolist()
        return [
            PackedSample(*parts, source=self.source, fixed=not self._setting["shuffle"])
            for parts in zip(
                np.split(batch.ids, cuts),
                np.split(batch.positions, cuts),
                batch.epoch.tolist(),
                types,
                labels,
                strict=True,
            )
        ]
