"""Windows of tokens that may begin anywhere: every window is full, and nothing need be stored.

Each window has `sequence_length - 2` tokens, so every token is used once an epoch; the last incomplete
window is left out. Windows of different epochs start at different offsets, so a document is not cut at
the same place each time.

Source: "full-sentences" packing of RoBERTa (arXiv 1907.11692, section 4.2), cut by tokens instead of
sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.keyed import permute
from ..shards import SourceTokens
from .samples import Cut, Int64, Order, Pieces, TooSmall

__all__ = ["Windows", "open_windows"]


@dataclass(frozen=True)
class Windows:
    """The windows of one source in their order.

    Attributes:
        source: where its tokens lie.
        window: tokens of a window.
        number: windows of an epoch.
        order: of the windows.
    """

    source: SourceTokens
    window: int
    number: int
    order: Order
    cut_sentences: int = 0

    @property
    def num_used(self) -> int:
        """Tokens of an epoch."""
        return self.number * self.window

    @property
    def tokens_left_out(self) -> int:
        """Tokens that an epoch does not have."""
        return self.source.num_tokens - self.num_used

    def _offset(self, epoch: int) -> int:
        if not self.order.shuffle or self.tokens_left_out <= 0:
            return 0
        return self.order.derive("offset", epoch) % min(self.tokens_left_out + 1, self.window)

    def find(self, ranks: Int64) -> Pieces:
        """Look up windows of this source, numbered from the start of training."""
        epochs, within = np.divmod(ranks, self.number)
        starts = np.empty_like(ranks)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            windows = within[chosen]
            if self.order.shuffle:
                windows = permute(self.order.derive("order", epoch), windows, self.number)
            starts[chosen] = self.source.first + windows * self.window + self._offset(epoch)
        return Pieces(starts[:, None], np.full((len(ranks), 1), self.window, np.int64), epochs)


def open_windows(source: SourceTokens, cut: Cut, order: Order) -> Windows | TooSmall:
    """Cut a source into windows.

    Args:
        source: where its tokens lie.
        cut: the length.
        order: of the windows.
    """
    if source.num_tokens < cut.room:
        return TooSmall(f"its {source.num_tokens} tokens are fewer than one sequence")
    # One window fewer leaves room for the offset of the epoch.
    number = max(1, (source.num_tokens - (cut.room - 1 if order.shuffle else 0)) // cut.room)
    return Windows(source, cut.room, number, order)
