"""Samples of one part, read off the index in keyed random order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...core.keyed import permute
from .index import Section
from .samples import Int64, Order, Pieces

__all__ = ["Indexed", "Runs"]


@dataclass(frozen=True)
class Indexed:
    """What samples that are made by the index have in common.

    Attributes:
        section: the source's part of the index.
        order: of the samples.
        tokens_left_out: none; a sentence that is too long is cut, and all of it is used.
    """

    section: Section
    order: Order
    tokens_left_out: int = field(default=0, init=False)

    @property
    def num_used(self) -> int:
        """Tokens of an epoch, random second parts not counted."""
        return self.section.num_tokens

    @property
    def cut_sentences(self) -> int:
        """Sentences that were too long to stay whole."""
        return self.section.num_cut


class Runs(Indexed):
    """The samples of one source: runs of whole sentences."""

    @property
    def number(self) -> int:
        """Samples of an epoch."""
        return len(self.section.starts)

    def find(self, ranks: Int64) -> Pieces:
        """Look up samples of this source, numbered from the start of training."""
        epochs, numbers = np.divmod(ranks, self.number)
        if self.order.shuffle:
            for epoch in np.unique(epochs).tolist():
                chosen = epochs == epoch
                numbers[chosen] = permute(self.order.derive("order", epoch), numbers[chosen], self.number)
        starts = self.section.starts[numbers]
        lengths = self.section.lengths[numbers].astype(np.int64)
        return Pieces(starts[:, None], lengths[:, None], epochs)
