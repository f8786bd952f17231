"""Which part of the work a rank has: its tokens, its heads, its rows of the vocabulary; and its dropout.

On the CPU a mask belongs to a sequence. A rank draws the mask of the whole sequence and takes its own
tokens or heads out of it, so that ranks together drop what one process would drop. Drawing costs as much
on each rank as on one process alone. Elsewhere each rank draws from its device's generator, which is
seeded differently on each rank: no two of them drop the same value.

Legend: N tokens, T ranks, C = N / T rounded up, D hidden, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...core.keyed import derive_key
from ...model.dropout import DropoutKeys
from ...model.layout import Layout

__all__ = ["HeadKeys", "Piece", "SharingGroup", "TokenKeys", "TokenPart", "local"]


def local(parameter: Tensor) -> Tensor:
    """This rank's part of a parameter, as it is now; its gradient goes to the parameter."""
    if isinstance(parameter, DTensor):
        part: Tensor = parameter.to_local()
        return part
    return parameter


class Piece(NamedTuple):
    """A run of tokens of one sequence.

    Attributes:
        row: number of the sequence; None for what fills the last rank up.
        offset: first token, counted in the sequence.
        num_tokens: of the run.
        length: tokens of the whole sequence.
    """

    row: int | None
    offset: int
    num_tokens: int
    length: int


class TokenPart:
    """The tokens of a rank, of a micro-batch that all its ranks have.

    Args:
        layout: lengths of the sequences.
        rank: of this process among those that share layers.
        size: T.
    """

    def __init__(self, layout: Layout, rank: int, size: int) -> None:
        each = -(-layout.num_tokens // size)
        self.num_tokens = layout.num_tokens
        self.start = min(rank * each, self.num_tokens)
        self.stop = min(self.start + each, self.num_tokens)
        self.num_filled = each - (self.stop - self.start)
        self.pieces = tuple(self._cut(layout))

    def _cut(self, layout: Layout) -> list[Piece]:
        pieces = []
        for row, (start, length) in enumerate(zip(layout.starts, layout.lengths, strict=True)):
            first, last = max(start, self.start), min(start + length, self.stop)
            if first < last:
                pieces.append(Piece(row, first - start, last - first, length))
        if self.num_filled:
            pieces.append(Piece(None, 0, self.num_filled, self.num_filled))
        return pieces

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each piece; C in all."""
        return tuple(piece.num_tokens for piece in self.pieces)

    def take(self, values_N: Tensor) -> Tensor:
        """The values of this rank's tokens; those of what is filled up are 0."""
        own = values_N[self.start : self.stop]
        return torch.nn.functional.pad(own, (0, self.num_filled)) if self.num_filled else own


class TokenKeys(DropoutKeys):
    """Keys that draw masks for pieces of sequences, as cut out of the masks of whole sequences.

    Args:
        keys: of the sequences.
        part: this rank's tokens.
    """

    def __init__(self, keys: DropoutKeys, part: TokenPart) -> None:
        super().__init__(keys.rows)
        self.part = part

    def keep(
        self, rows: Sequence[int], sizes: Sequence[int], site: int, p: float, dtype: torch.dtype
    ) -> Tensor:
        """Which values of some pieces stay; see `DropoutKeys.keep`."""
        found: list[Tensor] = []
        for number, size in zip(rows, sizes, strict=True):
            row, offset, count, length = self.part.pieces[number]
            width = size // count
            # What is filled up meets zeros or goes nowhere; any mask will do.
            whole = super().keep([row or 0], [length * width], site, p, dtype)
            found.append(whole[offset * width : offset * width + size])
        return torch.cat(found)


class HeadKeys(DropoutKeys):
    """Keys that draw masks for some heads, as cut out of the masks of all heads.

    Args:
        keys: of the sequences.
        rank: of this process among those that share layers.
        size: T.
    """

    def __init__(self, keys: DropoutKeys, rank: int, size: int) -> None:
        super().__init__(keys.rows)
        self.rank, self.size = rank, size

    def keep(
        self, rows: Sequence[int], sizes: Sequence[int], site: int, p: float, dtype: torch.dtype
    ) -> Tensor:
        """Which values of the own heads stay; see `DropoutKeys.keep`."""
        whole = super().keep(rows, [size * self.size for size in sizes], site, p, dtype)
        parts, start = [], 0
        for size in sizes:
            first = start + self.rank * size
            parts.append(whole[first : first + size])
            start += self.size * size
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class SharingGroup:
    """The ranks that share the layers of a model.

    Attributes:
        group: their process group.
        rank: of this process among them.
        size: T.
    """

    group: Any
    rank: int
    size: int

    @classmethod
    def of(cls, group: Any) -> SharingGroup:
        """The sharing group of a process group."""
        return cls(group, dist.get_rank(group), dist.get_world_size(group))

    @cached_property
    def _parts(self) -> WeakKeyDictionary[Layout, TokenPart]:
        return WeakKeyDictionary()

    def tokens(self, layout: Layout) -> TokenPart:
        """This rank's tokens of a micro-batch; worked out once for all layers."""
        if layout not in self._parts:
            self._parts[layout] = TokenPart(layout, self.rank, self.size)
        return self._parts[layout]

    def head_keys(self, keys: DropoutKeys | None) -> DropoutKeys | None:
        """Keys for this rank's heads."""
        return None if keys is None else HeadKeys(keys, self.rank, self.size)

    def token_keys(self, keys: DropoutKeys | None, part: TokenPart) -> DropoutKeys | None:
        """Keys for this rank's tokens."""
        return None if keys is None else TokenKeys(keys, part)

    def seed(self, keys: DropoutKeys, device: torch.device) -> None:
        """Seed a device that draws masks by itself, differently on each rank."""
        if device.type != "cpu":
            torch.manual_seed(derive_key("dropout", "tensor", self.rank, *keys.rows.tolist()) & (2**63 - 1))

    def first_row(self, num_rows: int) -> int:
        """First row of this rank, of a table that is cut by rows."""
        return min(self.rank * -(-num_rows // self.size), num_rows)
