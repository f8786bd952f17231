"""The order of rows in a joined query-key-value matrix, and the way from and to three matrices.

Rows lie head by head: those of the first head's queries, of its keys, of its values, then the second
head's. So a run of heads is a run of rows, and a matrix can be cut between heads wherever a tensor can
be cut. Published files have three matrices, or one with all queries first.

Legend: H heads, E head width, D = H × E.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["join_qkv", "split_qkv"]


def join_qkv(parts: Sequence[Tensor], num_heads: int) -> Tensor:
    """Lay three matrices or biases together, head by head.

    Args:
        parts: of queries, keys and values; each of shape (D, ...).
        num_heads: H.

    Returns:
        Tensor of shape (3 × D, ...).
    """
    by_head = [part.view(num_heads, -1, *part.shape[1:]) for part in parts]
    return torch.stack(by_head, 1).flatten(0, 2)


def split_qkv(joined: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of the three parts of a joined matrix or bias, each of shape (H, E, ...).

    Args:
        joined: of shape (3 × D, ...).
        num_heads: H.

    Returns:
        Queries, keys and values; flatten the first two dimensions of each for a matrix.
    """
    query, key, value = joined.view(num_heads, 3, -1, *joined.shape[1:]).unbind(1)
    return query, key, value
