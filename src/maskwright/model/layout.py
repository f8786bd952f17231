"""Where the tokens of each sequence lie: the encoder works on real tokens only, laid end to end.

Legend: B sequences, S longest sequence, N real tokens in all, L length of one sequence.
Padding is removed on the way in, so no layer computes on it. Attention alone needs sequences side
by side; it takes them in blocks of (nearly) equal length, and a token never sees another sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Block", "Layout"]

# Attention scores of one block stay in the processor's cache.
_BLOCK_SCORES = 1 << 22
_BUCKET = 8


@dataclass(frozen=True)
class Block:
    """Some sequences that attention handles in one go.

    Attributes:
        rows: numbers of the sequences.
        length: length to which they are laid side by side.
        start: offset of the first token, where the rows are adjacent and all of this length.
        index: positions of the tokens among the N, of shape (len(rows), length), else None.
        lengths: real length of each row.
    """

    rows: tuple[int, ...]
    length: int
    start: int
    index: Tensor | None
    lengths: tuple[int, ...]


class Layout:
    """Lengths of B sequences laid end to end.

    Args:
        lengths: number of real tokens of each sequence; each at least 1.
        device: where index tensors are made.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        assert min(lengths) >= 1
        self.lengths = tuple(int(length) for length in lengths)
        self.device = torch.device(device)
        self.longest = max(self.lengths)
        self.uniform = min(self.lengths) == self.longest
        self.num_tokens = sum(self.lengths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Offset of each sequence among the N tokens."""
        offsets, total = [], 0
        for length in self.lengths:
            offsets.append(total)
            total += length
        return tuple(offsets)

    @cached_property
    def positions(self) -> Tensor:
        """Position of every token in its own sequence, from 0; int64 of shape (N,)."""
        if self.uniform:
            return torch.arange(self.longest, device=self.device).repeat(len(self.lengths))
        return torch.cat([torch.arange(length) for length in self.lengths]).to(self.device)

    @cached_property
    def first_tokens(self) -> Tensor:
        """Index of the first token of each sequence; int64 of shape (B,)."""
        return torch.tensor(self.starts, device=self.device)

    @cached_property
    def padded_index(self) -> Tensor:
        """Index of every real token in a flattened (B, S) array; int64 of shape (N,)."""
        rows = torch.repeat_interleave(
            torch.arange(len(self.lengths), device=self.device),
            torch.tensor(self.lengths, device=self.device),
        )
        return rows * self.longest + self.positions

    def blocks(self, num_heads: int) -> tuple[Block, ...]:
        """Cut the sequences into blocks for attention, by length."""
        if num_heads not in self._blocks:
            self._blocks[num_heads] = tuple(self._cut(num_heads))
        return self._blocks[num_heads]

    @cached_property
    def _blocks(self) -> dict[int, tuple[Block, ...]]:
        return {}

    def _cut(self, num_heads: int) -> list[Block]:
        buckets: dict[int, list[int]] = {}
        for row, length in enumerate(self.lengths):
            size = length if self.uniform else -(-length // _BUCKET) * _BUCKET
            buckets.setdefault(size, []).append(row)
        blocks = []
        for size, rows in sorted(buckets.items()):
            step = max(1, _BLOCK_SCORES // (num_heads * size * size))
            blocks += [self._block(rows[i : i + step], size) for i in range(0, len(rows), step)]
        return blocks

    def _block(self, rows: list[int], length: int) -> Block:
        lengths = tuple(self.lengths[row] for row in rows)
        if self.uniform:
            return Block(tuple(rows), length, self.starts[rows[0]], None, lengths)
        starts = torch.tensor([self.starts[row] for row in rows], device=self.device)
        offsets = torch.arange(length, device=self.device)
        last = torch.tensor(lengths, device=self.device) - 1
        index = starts[:, None] + torch.minimum(offsets[None, :], last[:, None])
        return Block(tuple(rows), length, -1, index, lengths)
