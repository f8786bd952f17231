"""Checks of masks while a run goes on: each gives None, or a message that names the fault.

A wrong mask raises no error and trains a worse model. These checks look at what came out and not at
how it was made: counts of a whole log window against the law of chance, and the tokens of one batch
against what they were. They cost a few vector operations and are meant for one batch a log window.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .masker import Expectation, Masker
from .unit import host_word_starts

__all__ = ["check_labels", "check_mask_rate", "check_masks", "check_specials", "check_words", "rate_interval"]

_Int64 = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]
# A right masker is blamed once in so many log windows, which no run has.
FALSE_ALARM = 1e-9
_REMEDY = "masks of this run cannot be trusted; stop it and report this"


def rate_interval(expected: Expectation, chance: float = FALSE_ALARM) -> tuple[float, float]:
    """Where the share of selected tokens lies, but for a small chance.

    Words and spans make larger steps than single tokens do. The interval is that of a binomial
    number of such steps, by Bernstein's inequality, which holds for few tokens too.

    Args:
        expected: sums over the tokens that were looked at.
        chance: of lying outside.

    Returns:
        `(lowest, highest)` share, within 0 and 1.

    Source: Boucheron, Lugosi and Massart, "Concentration inequalities" (2013), corollary 2.11.
    """
    if not expected.variance:
        return 0.0, 1.0
    rate = expected.targets / expected.num_eligible
    step = expected.variance / (expected.targets * (1 - rate))
    exponent = math.log(2 / chance)
    tail = exponent * step / 3
    reach = (tail + math.sqrt(tail * tail + 2 * exponent * expected.variance)) / expected.num_eligible
    return max(0.0, rate - reach), min(1.0, rate + reach)


def check_mask_rate(num_selected: int, expected: Expectation) -> str | None:
    """Compare the number of selected tokens of a log window with the law of chance.

    Args:
        num_selected: tokens that were selected.
        expected: sums over the same tokens. Where static masks come round several times within the
            window, its variance is to be multiplied by how often they do.
    """
    if not expected.num_eligible:
        return None if not num_selected else f"{num_selected} tokens are masked and none may be; {_REMEDY}"
    lowest, highest = rate_interval(expected)
    share, rate = num_selected / expected.num_eligible, expected.targets / expected.num_eligible
    if lowest <= share <= highest:
        return None
    return (
        f"{share:.2%} of {expected.num_eligible} tokens are masked, expected {rate:.2%} and by chance "
        f"{lowest:.2%} to {highest:.2%}; {_REMEDY}"
    )


def check_specials(
    masker: Masker, ids: _Int64, positions: _Int64, selected: _Bools, seen: _Int64
) -> str | None:
    """Look for special tokens that are masked, or drawn in the place of a token.

    Args:
        masker: knows which ids are special.
        ids: what the tokens are, (N,).
        positions: their places in the corpus, -1 for added specials, (N,).
        selected: which are predicted, (N,).
        seen: what the model sees, (N,).
    """
    masked = np.flatnonzero(selected & (masker.is_special[ids] | (positions < 0)))
    if len(masked):
        return f"special token {_token(ids, positions, masked[0])} is masked; {_REMEDY}"
    drawn = np.flatnonzero((seen != ids) & (seen != masker.mask_id) & masker.is_special[seen])
    if len(drawn):
        place = drawn[0]
        return f"special token {seen[place]} stands for token {_token(ids, positions, place)}; {_REMEDY}"
    return None


def check_labels(ids: _Int64, positions: _Int64, seen: _Int64, targets: _Int64, labels: _Int64) -> str | None:
    """Look for labels that are not the original token, and for changes where nothing is predicted.

    Args:
        ids: what the tokens are, (N,).
        positions: their places in the corpus, (N,).
        seen: what the model sees, (N,).
        targets: which of the N tokens are predicted, (M,).
        labels: the ids that the model is to find, (M,).
    """
    if len(targets) != len(labels):
        return f"{len(targets)} tokens are masked and {len(labels)} have labels; {_REMEDY}"
    wrong = np.flatnonzero(labels != ids[targets])
    if len(wrong):
        place = _token(ids, positions, targets[wrong[0]])
        return f"the label of token {place} is {labels[wrong[0]]}; {_REMEDY}"
    untouched = np.ones(len(ids), bool)
    untouched[targets] = False
    changed = np.flatnonzero(untouched & (seen != ids))
    if len(changed):
        place = _token(ids, positions, changed[0])
        return f"token {place} is not predicted, but the model sees {seen[changed[0]]}; {_REMEDY}"
    return None


def check_words(masker: Masker, ids: _Int64, positions: _Int64, selected: _Bools) -> str | None:
    """Look for words that are masked in part, where whole words or spans are masked.

    Args:
        masker: knows where words begin.
        ids: what the tokens are, (N,).
        positions: their places in the corpus, (N,).
        selected: which are predicted, (N,).
    """
    if masker.config.unit == "token" or masker.words is None:
        return None
    words, eligible = host_word_starts(masker.words, positions), masker.eligible(ids, positions)
    # A row may meet the same word in another epoch, so only neighbours in the text are compared.
    together = (
        (words[1:] == words[:-1]) & (positions[1:] == positions[:-1] + 1) & eligible[1:] & eligible[:-1]
    )
    torn = np.flatnonzero(together & (selected[1:] != selected[:-1]))
    if len(torn):
        return f"the word of token {_token(ids, positions, torn[0])} is masked in part; {_REMEDY}"
    return None


def check_masks(
    masker: Masker, ids: _Int64, positions: _Int64, seen: _Int64, targets: _Int64, labels: _Int64
) -> str | None:
    """Make all checks of the tokens of one batch.

    Args:
        masker: the one that made the masks.
        ids: what the tokens are, (N,).
        positions: their places in the corpus, -1 for added specials, (N,).
        seen: what the model sees, (N,).
        targets: which of the N tokens are predicted, (M,).
        labels: the ids that the model is to find, (M,).
    """
    selected = np.zeros(len(ids), bool)
    selected[targets] = True
    return (
        check_labels(ids, positions, seen, targets, labels)
        or check_specials(masker, ids, positions, selected, seen)
        or check_words(masker, ids, positions, selected)
    )


def _token(ids: _Int64, positions: _Int64, index: Any) -> str:
    where = (
        f"position {positions[index]} of the data" if positions[index] >= 0 else f"place {index} of the batch"
    )
    return f"{ids[index]} at {where}"
