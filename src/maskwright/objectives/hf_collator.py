"""Our masks in loops that are not ours: a collator for any `DataLoader`, and its loss for the Trainer.

The collator lays samples of a `PackedDataset` side by side, pads them and masks them. Masks are pure
functions of (seed, epoch, position in the corpus), so they do not depend on the sampler, the number of
workers or processes, or the size of a batch, and are those that our own loop makes with the same seed. The
cost is that of the masker: some dozen vector operations a token.

    train = PackedDataset("data", 128, seed=7)
    valid = PackedDataset("data", 128, split="validation", shuffle=False)
    collator = MaskingCollator([train, valid], MaskingConfig(unit="word"), seed=7)
    Trainer(
        model=RobertaForMaskedLM(config),
        args=TrainingArguments("run", train_sampling_strategy="sequential"),
        train_dataset=train,
        eval_dataset=valid,
        data_collator=collator,
        compute_loss_func=masked_lm_mean,
    ).train()

Legend: B samples, S tokens of the longest, N tokens laid end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.errors import ConfigError, DataError
from ..tokens.interchange.torch_dataset import PackedDataset, PackedSample
from ..tokens.words import open_words
from .masking import FIXED_EPOCH, Masker, MaskingConfig

__all__ = ["IGNORED", "MaskingCollator", "masked_lm_mean"]

_Int64 = npt.NDArray[np.int64]

# The label that losses of torch and transformers pass over.
IGNORED = -100


class MaskingCollator:
    """Makes padded, masked batches of the samples of some datasets; may be pickled and sent to workers.

    Args:
        datasets: those whose samples come, such as a training and a validation split of one folder.
        config: how much is masked, and what together.
        seed: decides the masks.
        pad_to_multiple_of: round the length of a batch up to this many tokens.
        next_sentence: also give `next_sentence_label`, where samples are pairs.

    Raises:
        ConfigError: there is no dataset, their vocabularies differ, or the rate is to change with the
            progress of training, of which a collator knows nothing.
        TokenizerError: words are to be masked and neither data nor vocabulary say where they begin.
    """

    def __init__(
        self,
        datasets: Sequence[PackedDataset],
        config: MaskingConfig = MaskingConfig(),  # noqa: B008 - it is frozen
        seed: int = 0,
        *,
        pad_to_multiple_of: int = 1,
        next_sentence: bool = False,
    ) -> None:
        if not datasets:
            raise ConfigError("the collator was given no dataset; give it those whose samples it masks")
        if config.final_probability is not None:
            raise ConfigError(
                f"final_probability is {config.final_probability}, but a collator does not know how much of "
                "training is done; leave it out"
            )
        names = sorted({dataset.tokenizer.fingerprint for dataset in datasets})
        if len(names) > 1:
            raise ConfigError(f"the datasets have vocabularies {', '.join(names)}; make a collator for each")
        self.datasets, self.config, self.seed = tuple(datasets), config, seed
        self.pad_to_multiple_of, self.next_sentence = pad_to_multiple_of, next_sentence
        self._open()

    def _open(self) -> None:
        tokenizer = self.datasets[0].tokenizer
        self.pad_id = tokenizer.pad_id
        ids = (tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
        words = {
            dataset.source: None
            if self.config.unit == "token"
            else open_words(dataset.stream.data, tokenizer)
            for dataset in self.datasets
        }
        first = Masker(self.config, self.seed, *ids, words[self.datasets[0].source])
        self._maskers = {source: first.over(found) for source, found in words.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_maskers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __call__(self, samples: Sequence[PackedSample]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            samples: B of them.

        Returns:
            `input_ids`, `attention_mask` and `labels` (-100 where nothing is predicted), int64 of shape
            (B, S); for pairs also `token_type_ids` of the same shape and, if asked for,
            `next_sentence_label` of shape (B,).

        Raises:
            DataError: a sample is of none of the datasets.
        """
        lengths = np.array([len(sample.ids) for sample in samples])
        step = self.pad_to_multiple_of
        inside_BS = np.arange(-(-int(lengths.max()) // step) * step) < lengths[:, None]
        seen_N, labels_N = self._mask(samples, lengths)
        batch = {
            "input_ids": _padded(inside_BS, seen_N, self.pad_id),
            "attention_mask": torch.from_numpy(inside_BS.astype(np.int64)),
            "labels": _padded(inside_BS, labels_N, IGNORED),
        }
        types = [sample.token_types for sample in samples if sample.token_types is not None]
        if len(types) == len(samples):
            batch["token_type_ids"] = _padded(inside_BS, np.concatenate(types), 0)
            if self.next_sentence:
                batch["next_sentence_label"] = torch.tensor([sample.next_label for sample in samples])
        return batch

    def _mask(self, samples: Sequence[PackedSample], lengths: _Int64) -> tuple[_Int64, _Int64]:
        """What the model sees and what it is to find, samples laid end to end; one call a split and epoch."""
        ids_N = np.concatenate([sample.ids for sample in samples])
        positions_N = np.concatenate([sample.positions for sample in samples])
        kinds = [(sample.source, FIXED_EPOCH if sample.fixed else sample.epoch) for sample in samples]
        seen_N, labels_N = ids_N.copy(), np.full_like(ids_N, IGNORED)
        for source, epoch in sorted(set(kinds)):
            if source not in self._maskers:
                raise DataError(
                    f"a sample is of {source}, the collator knows {', '.join(sorted(self._maskers))}; "
                    "give it every dataset whose samples it masks"
                )
            rows = np.repeat([kind == (source, epoch) for kind in kinds], lengths)
            found = self._maskers[source].mask(ids_N[rows], positions_N[rows], epoch)
            seen_N[rows] = found.seen
            labels_N[rows] = np.where(found.selected, ids_N[rows], IGNORED)
        return seen_N, labels_N


def _padded(inside_BS: npt.NDArray[np.bool_], values_N: _Int64, filler: int) -> Tensor:
    padded = np.full(inside_BS.shape, filler, np.int64)
    padded[inside_BS] = values_N
    return torch.from_numpy(padded)


def masked_lm_mean(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """The `compute_loss_func` of a Trainer under which every predicted token of a step weighs the same.

    Needed with `transformers` 5: it takes the loss of `RobertaForMaskedLM`, a mean over a micro-batch, for a
    share of the mean over the step. Loss and gradients come out larger by the number of micro-batches and
    of processes, before clipping, and a micro-batch with few targets weighs as much as one with many.

    Args:
        outputs: of the model; `logits` of shape (B, S, V), or a mapping that has them.
        labels: ids, -100 where nothing is predicted; (B, S).
        num_items_in_batch: labels of the step, over micro-batches and processes; None: of this batch.

    Returns:
        Sum of the losses over the number of labels; an fp32 scalar in nats.
    """
    logits = outputs["logits"]
    wanted = labels != IGNORED
    total = torch.nn.functional.cross_entropy(logits[wanted].float(), labels[wanted], reduction="sum")
    return total / (wanted.sum() if num_items_in_batch is None else num_items_in_batch)
