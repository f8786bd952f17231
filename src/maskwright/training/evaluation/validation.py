"""Validation loss of a masked language model with masks that no run and no setting changes.

What is measured depends on the validation split, the sequence length and the number of sequences
alone: windows of the corpus in their order, 15 % of their tokens hidden, chosen by a seed of the
evaluation's own. Objective, input format, masking, mixture, batch and seed of a run have no part in
it, so losses of different runs can be compared. Nothing but sums is kept from one batch to the next.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ...core.log import get_logger
from ...objectives.masking import Masker, MaskingConfig
from ...objectives.mlm import MaskedBatch, fixed_batches
from ...parallel.world import SOLO, World
from ...tokens.shards import SourceTokens, TokenData
from ...tokens.stream import SampleStream
from ...tokens.tokenizer import Tokenizer
from ..hooks import Record
from ..unigram import unigram_loss

__all__ = ["Forward", "Validation", "measure"]

log = get_logger(__name__)
Forward = Callable[[MaskedBatch], dict[str, float]]
_WHOLE = "all tokens"  # how a source is called that has no name


@dataclass(frozen=True)
class _Part:
    """The sequences of one source that are measured, and its share of the validation text."""

    stream: SampleStream
    num_sequences: int
    share: float


class Validation:
    """Fixed masked sequences of a validation split, by source.

    The sequences are dealt out evenly, so that a small source is measured as exactly as a large one.
    The overall loss weighs each source by its share of the validation split.

    Args:
        data: the validation split.
        tokenizer: its vocabulary.
        sequence_length: tokens of a sequence, the two special tokens included.
        num_sequences: sequences of all sources together; a source has at least one.
        batch_size: sequences computed at a time; only memory and speed depend on it.
        seed: decides the masks.
        mlm_probability: share of tokens that are predicted.
        per_source: report each source, where there are several.

    Attributes:
        sequences_by_source: how many sequences of each source are measured.

    Raises:
        DataError: no source has as many tokens as one sequence.
    """

    def __init__(
        self,
        data: TokenData,
        tokenizer: Tokenizer,
        *,
        sequence_length: int,
        num_sequences: int,
        batch_size: int,
        seed: int = 0,
        mlm_probability: float = 0.15,
        per_source: bool = True,
    ) -> None:
        self.data, self.special_ids, self.batch_size = data, tokenizer.special_ids, batch_size
        masking = MaskingConfig(mlm_probability=mlm_probability)
        self.masker = Masker(masking, seed, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
        used = _long_enough(data, sequence_length)
        ids = (tokenizer.bos_id, tokenizer.eos_id)
        streams = [SampleStream(_only(data, s), sequence_length, *ids, seed, shuffle=False) for s in used]
        windows = [stream.samples_per_epoch for stream in streams]
        self._parts = {
            source.name: _Part(stream, number, number_of_all / sum(windows))
            for source, stream, number, number_of_all in zip(
                used, streams, _deal(windows, num_sequences), windows, strict=True
            )
        }
        self.per_source = per_source and len(self._parts) > 1

    @property
    def sequences_by_source(self) -> dict[str, int]:
        """How many sequences of each source are measured."""
        return {name: part.num_sequences for name, part in self._parts.items()}

    @property
    def largest(self) -> SampleStream:
        """The windows of the largest source, for people to look at some."""
        return max(self._parts.values(), key=lambda part: part.share).stream

    def _batches(self, part: _Part, world: World = SOLO) -> Iterator[MaskedBatch]:
        """Batches of a part; of each round one for every process, the last ones perhaps fillers."""
        return fixed_batches(
            part.stream, self.masker, part.num_sequences, self.batch_size, world.data_rank, world.data_size
        )

    def measure(self, forward: Forward, world: World = SOLO) -> Record:
        """Loss, accuracy and perplexity, overall and by source.

        Args:
            forward: a batch to its sums, of which `loss_sum` (nats) and `correct` are used.
            world: processes that share the batches; all get the same numbers.

        Returns:
            `loss`, `accuracy`, `perplexity`, `targets`; with several sources also `loss/NAME`,
            `accuracy/NAME` and `perplexity/NAME` for each.
        """
        found = {
            name: measure(self._batches(part, world), forward, world) for name, part in self._parts.items()
        }
        record: Record = {name: self._mean(found, name) for name in ("loss", "accuracy")}
        record["perplexity"] = _perplexity(record["loss"])
        record["targets"] = sum(values["targets"] for values in found.values())
        if self.per_source:
            for key in ("loss", "accuracy", "perplexity"):
                record |= {f"{key}/{name}": values[key] for name, values in _measured(found).items()}
        return record

    def _mean(self, found: Mapping[str, Record], key: str) -> float:
        """Mean over the sources by their share of the text; one without a target has no part in it."""
        shares = {name: self._parts[name].share for name in _measured(found)}
        total = math.fsum(shares.values())
        return math.fsum(share * found[name][key] for name, share in shares.items()) / (total or 1.0)

    def baseline(self, counts: npt.NDArray[np.float64]) -> Record:
        """Loss of guessing by token frequency on the same targets.

        Args:
            counts: occurrences of each id in training (`unigram.mixture_counts`), of shape (V,).

        Returns:
            `unigram_loss`; with several sources also `unigram_loss/NAME` for each.
        """
        found: dict[str, Record] = {}
        for name, part in self._parts.items():
            labels = [_labels(batch) for batch in self._batches(part)]
            loss = unigram_loss(counts, labels, self.special_ids)
            found[name] = {"loss": loss, "targets": sum(map(len, labels))}
        record: Record = {"unigram_loss": self._mean(found, "loss")}
        if self.per_source:
            record |= {f"unigram_loss/{name}": values["loss"] for name, values in _measured(found).items()}
        return record

    def sources(self, *records: Record) -> dict[str, Record]:
        """Put what `measure` and `baseline` said of each source together, for the summary of a run.

        Returns:
            By source `share` (of the validation text), `sequences`, and what the records hold of it;
            empty where sources are not reported.
        """
        if not self.per_source:
            return {}
        values = {key: value for record in records for key, value in record.items()}
        keys = ("loss", "accuracy", "perplexity", "unigram_loss")
        return {
            name: {
                "share": part.share,
                "sequences": part.num_sequences,
                **{key: values[f"{key}/{name}"] for key in keys if f"{key}/{name}" in values},
            }
            for name, part in self._parts.items()
        }

    def windows(self, count: int) -> list[npt.NDArray[np.int64]]:
        """The first sequences before masking, dealt out to the sources in the same way; ids of each."""
        numbers = _deal([part.num_sequences for part in self._parts.values()], count)
        rows = []
        for part, number in zip(self._parts.values(), numbers, strict=True):
            batch = part.stream.batch(0, number)
            rows += list(batch.ids.reshape(number, -1))
        return rows


def measure(batches: Iterable[MaskedBatch], forward: Forward, world: World = SOLO) -> Record:
    """Loss, accuracy, perplexity and number of targets over batches; nothing but sums is kept.

    Args:
        batches: of this process; equally many for each.
        forward: a batch to its sums.
        world: the processes.
    """
    sums = {"loss": 0.0, "correct": 0.0, "targets": 0.0}
    for batch in batches:
        found = forward(batch)
        sums["loss"] += found["loss_sum"]
        sums["correct"] += found["correct"]
        sums["targets"] += batch.num_targets
    if world.size > 1:
        sums = world.sums(sums)
    targets = int(sums["targets"])
    loss, accuracy = sums["loss"] / max(1, targets), sums["correct"] / max(1, targets)
    return {"loss": loss, "accuracy": accuracy, "perplexity": _perplexity(loss), "targets": targets}


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _labels(batch: MaskedBatch) -> npt.NDArray[np.int64]:
    labels: npt.NDArray[np.int64] = batch.labels_M.numpy()
    return labels


def _measured(found: Mapping[str, Record]) -> dict[str, Record]:
    return {name: values for name, values in found.items() if values["targets"]}


def _only(data: TokenData, source: SourceTokens) -> TokenData:
    """The same split, as if it had one source. Places of tokens, and so their masks, stay."""
    view = copy.copy(data)
    # A cached property lives in the dictionary of its object.
    view.__dict__["sources"] = (replace(source, repeats=1.0),)
    return view


def _long_enough(data: TokenData, sequence_length: int) -> list[SourceTokens]:
    window = sequence_length - 2
    used = [source for source in data.sources if source.num_tokens >= window]
    if not used:
        fewer = "but no source has as many as" if len(data.sources) > 1 else "fewer than"
        raise DataError(
            f"{data.folder}: split {data.split!r} has {data.num_tokens} tokens, {fewer} one sequence "
            f"({window} and two specials); add text or lower sequence_length"
        )
    for source in data.sources:
        if source not in used:
            log.warning(
                "%s: source %r is not evaluated: its %d tokens of split %r are fewer than one sequence",
                *(data.folder, source.name or _WHOLE, source.num_tokens, data.split),
            )
    return used


def _deal(available: Sequence[int], total: int) -> list[int]:
    """Deal a number out evenly: everyone gets at least one, nobody more than there is.

    What a small source cannot use goes to the larger ones.
    """
    dealt, left = [0] * len(available), total
    order = sorted(range(len(available)), key=lambda index: available[index])
    for position, index in enumerate(order):
        dealt[index] = min(available[index], max(1, left // (len(order) - position)))
        left -= dealt[index]
    return dealt
