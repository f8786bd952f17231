"""Masks as a pure function of (seed, epoch, position of the token in the corpus).

A token is selected or not because of where it stands, not because of which batch or worker met it,
so masks are the same for every batch split, world size and packing. They are new in every epoch, or
one of a fixed number of copies. The masks of a lower rate lie inside those of a higher one.

Source: BERT (arXiv 1810.04805, section 3.1) for 80/10/10; RoBERTa (arXiv 1907.11692, section 4.1)
for masks that change, and for the ten copies that the epochs of its baseline take in turn.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from ...core.errors import ConfigError
from ...core.keyed import derive_key, hash64, to_range, to_unit
from ...core.log import get_logger
from .config import MaskingConfig
from .spans import Spans
from .tokens import Tokens
from .unit import ArrayT, Draw, Unit, WordBorders, from_host, to_host
from .words import WholeWords

__all__ = ["FIXED_EPOCH", "Expectation", "Masked", "Masker"]

log = get_logger(__name__)
# The epoch whose masks are used for validation, in every run and at every step.
FIXED_EPOCH = -1


@dataclass(frozen=True)
class Expectation:
    """What the law of chance says of some tokens; all three add up over batches.

    Attributes:
        num_eligible: tokens that may be selected.
        targets: how many of them are selected on average.
        variance: of that number.
    """

    num_eligible: int
    targets: float
    variance: float


@dataclass(frozen=True)
class Masked(Generic[ArrayT]):
    """Tokens with masks in place; arrays of the shape of the ids.

    Attributes:
        selected: which tokens are predicted.
        seen: what the model sees.
        eligible: which tokens could have been selected.
        words: which tokens are selected together; None: each by itself.
        rate: share of tokens that is selected on average.
        clustering: variance of the number of words as a multiple of the binomial one.
    """

    selected: ArrayT
    seen: ArrayT
    eligible: ArrayT
    words: ArrayT | None
    rate: float
    clustering: float

    def expectation(self) -> Expectation:
        """How many tokens should have been selected; costs a sort where words are masked.

        A word adds the square of its tokens to the variance. For spans that bounds it from above:
        it takes neighbouring words for equally long.
        """
        eligible = to_host(self.eligible)
        squares = num_eligible = int(eligible.sum())
        if self.words is not None:
            _, sizes = np.unique(to_host(self.words)[eligible], return_counts=True)
            squares = int((sizes * sizes).sum())
        variance = squares * self.rate * (1 - self.rate) * self.clustering
        return Expectation(num_eligible, num_eligible * self.rate, variance)


class Masker:
    """Selects and replaces tokens. Takes and gives NumPy arrays or torch tensors, with equal results.

    Args:
        config: unit, shares, rates.
        seed: the run's seed.
        vocab_size: number of ids.
        mask_id: id of `<mask>`.
        special_ids: ids that are never selected and never drawn.
        words: where words begin in the data that positions refer to; needed for words and spans.

    Raises:
        ConfigError: words or spans are to be masked and `words` is None.
    """

    def __init__(
        self,
        config: MaskingConfig,
        seed: int,
        vocab_size: int,
        mask_id: int,
        special_ids: tuple[int, ...],
        words: WordBorders | None = None,
    ) -> None:
        self.config, self.seed, self.mask_id = config, seed, mask_id
        self.is_special = np.zeros(vocab_size, bool)
        self.is_special[list(special_ids)] = True
        self.ordinary = np.flatnonzero(~self.is_special)
        self.words, self.unit = words, _make_unit(config, seed, words)
        self._tables: dict[str, tuple[Any, Any]] = {}
        _warn_of_ignored(config)

    def over(self, words: WordBorders | None) -> Masker:
        """The same masker for other data, such as another split, whose words lie elsewhere."""
        other = copy.copy(self)
        other.words, other.unit = words, _make_unit(self.config, self.seed, words)
        return other

    def eligible(self, ids: ArrayT, positions: ArrayT) -> ArrayT:
        """Which tokens may be selected: those of the corpus that are not special."""
        is_special, _ = self._tables_for(ids)
        eligible: ArrayT = (positions >= 0) & ~is_special[ids]
        return eligible

    def select(self, ids: ArrayT, positions: ArrayT, epoch: int, rate: float | None = None) -> ArrayT:
        """Which tokens are predicted.

        Args:
            ids: token ids, int64, any shape.
            positions: their places in the corpus, -1 for specials added around windows; int64.
            epoch: number of the epoch.
            rate: share of tokens that is selected; None takes `mlm_probability`.

        Returns:
            Booleans of the same shape.
        """
        draw = self._draw(positions, epoch, rate)
        selected: ArrayT = draw.chosen & self.eligible(ids, positions)
        return selected

    def replace(self, ids: ArrayT, positions: ArrayT, epoch: int, rate: float | None = None) -> ArrayT:
        """What the model sees if a token is selected: `<mask>`, a random token, or the token.

        Args:
            ids: token ids, int64, any shape.
            positions: their places in the corpus; int64.
            epoch: number of the epoch.
            rate: the same as for `select`; a span is replaced as one, and the rate says where spans lie.

        Returns:
            Ids of the same shape.
        """
        filled: ArrayT = self._fill(
            ids, positions, self._draw(positions, epoch, rate).leaders, self._copy(epoch)
        )
        return filled

    def mask(self, ids: ArrayT, positions: ArrayT, epoch: int, rate: float | None = None) -> Masked[ArrayT]:
        """Select and replace at once, which finds words only once.

        Args:
            ids: token ids, int64, any shape.
            positions: their places in the corpus, -1 for specials added around windows; int64.
            epoch: number of the epoch.
            rate: share of tokens that is selected; None takes `mlm_probability`.
        """
        rate = self.config.mlm_probability if rate is None else rate
        draw = self._draw(positions, epoch, rate)
        eligible = self.eligible(ids, positions)
        selected = draw.chosen & eligible
        filled = self._fill(ids, positions, draw.leaders, self._copy(epoch))
        seen = _where(selected, filled, ids)
        return Masked(selected, seen, eligible, draw.words, rate, self.unit.clustering(rate))

    def _copy(self, epoch: int) -> int:
        """The number of the masking that an epoch uses; validation keeps its own."""
        copies = self.config.static_copies
        return epoch % copies if copies and epoch != FIXED_EPOCH else epoch

    def _draw(self, positions: ArrayT, epoch: int, rate: float | None) -> Draw:
        rate = self.config.mlm_probability if rate is None else rate
        return self.unit.draw(positions, self._copy(epoch), rate)

    def _fill(self, ids: ArrayT, positions: ArrayT, leaders: ArrayT, epoch: int) -> ArrayT:
        _, ordinary = self._tables_for(ids)
        draw = to_unit(hash64(derive_key(self.seed, "replace", epoch), leaders))
        bits = hash64(derive_key(self.seed, "random token", epoch), positions)
        random_ids = ordinary[to_range(bits, 0, len(self.ordinary))]
        seen = _where(draw < self.config.mask_share + self.config.random_share, random_ids, ids)
        return _where(draw < self.config.mask_share, self.mask_id, seen)

    def _tables_for(self, example: ArrayT) -> tuple[ArrayT, ArrayT]:
        """Which ids are special, and the others, where the example lies; copied there once."""
        place = "" if isinstance(example, np.ndarray) else str(example.device)
        if place not in self._tables:
            self._tables[place] = (from_host(self.is_special, example), from_host(self.ordinary, example))
        return self._tables[place]


def _make_unit(config: MaskingConfig, seed: int, words: WordBorders | None) -> Unit:
    if config.unit == "token":
        return Tokens(seed)
    if words is None:
        raise ConfigError(
            f'"masking.unit" is {config.unit!r}, but the masker was not told where words begin; '
            "give it the words of the data, or set masking.unit=token"
        )
    if config.unit == "word":
        return WholeWords(seed, words)
    return Spans(seed, words, config.span_p, config.span_max)


def _warn_of_ignored(config: MaskingConfig) -> None:
    given = (config.span_p, config.span_max)
    default = tuple(type(config).model_fields[name].default for name in ("span_p", "span_max"))
    if config.unit != "span" and given != default:
        log.warning(
            "masking.span_p and masking.span_max are ignored with masking.unit=%s; "
            "set masking.unit=span to mask spans",
            config.unit,
        )


def _where(condition: ArrayT, chosen: ArrayT | int, other: ArrayT) -> ArrayT:
    if isinstance(condition, np.ndarray):
        result: npt.NDArray[Any] = np.where(condition, chosen, other)
        return result
    import torch

    return torch.where(condition, chosen, other)
