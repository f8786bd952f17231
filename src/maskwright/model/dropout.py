"""Dropout whose mask is a pure function of (key of the sequence, place in the model).

The usual dropout draws from one generator, so its masks change with the batch split and its state
must be saved. Here every sequence brings a key; the same sequence in the same step gets the same
mask in any micro-batch, and nothing needs saving. Masks are drawn again in the backward pass
instead of being kept. On the CPU, where drawing dominated a training step, one random byte decides
one value and the mask is applied as an integer product. Other devices use their own generator,
which is seeded from the keys for each micro-batch.

Source: Srivastava et al., JMLR 2014; inverted scaling, as in every current framework.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.keyed import derive_key, hash64

__all__ = ["DropoutKeys", "apply_keep", "dropout"]

_INTEGER_OF = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class DropoutKeys:
    """One key for each of B sequences; the source of every dropout mask of a micro-batch.

    Args:
        rows: int64 array of shape (B,), different for every (run, step, sequence).
    """

    def __init__(self, rows: npt.NDArray[np.int64]) -> None:
        self.rows = rows

    def seed(self, device: torch.device) -> None:
        """Seed a device that draws masks with its own generator, from the keys of this micro-batch."""
        if device.type != "cpu":
            torch.manual_seed(derive_key("dropout", *self.rows.tolist()) & (2**63 - 1))

    def keep(
        self, rows: Sequence[int], sizes: Sequence[int], site: int, p: float, dtype: torch.dtype
    ) -> Tensor:
        """Draw which values stay.

        Args:
            rows: numbers of the sequences.
            sizes: number of values for each of them.
            site: number of the place in the model.
            p: share of values to drop. Each row drops 1/256 more or less so that bytes decide,
                in the proportion that makes the expected share exactly `p`.
            dtype: floating type of the values that the mask will meet.

        Returns:
            1 (stay) and 0 (drop), laid end to end, as integers as wide as `dtype`.
        """
        keys = hash64(derive_key("dropout", site), self.rows[list(rows)])
        whole, part = divmod(p * 256, 1)
        keep = torch.empty(sum(sizes), dtype=_INTEGER_OF[dtype.itemsize])
        start = 0
        for key, size in zip(keys.tolist(), sizes, strict=True):
            raw = np.random.SFC64(key & (2**63 - 1)).random_raw(-(-size // 8))
            values = torch.from_numpy(raw.view(np.uint8)[:size])
            # The top bits of the key decide the rounding; the generator mixes all of them anew.
            threshold = int(whole) + (((key >> 40) & 0xFFFF) < part * 65536)
            torch.ge(values, min(threshold, 255), out=keep[start : start + size])
            if threshold > 255:  # which torch would take for a byte of 0
                keep[start : start + size] = 0
            start += size
        return keep


def apply_keep(values: Tensor, keep: Tensor) -> Tensor:
    """Zero the dropped values in place: a product of bit patterns with 0 or 1, exact and cheap."""
    flat = values.view(_INTEGER_OF[values.dtype.itemsize])
    flat.mul_(keep.view_as(flat))
    return values


class _KeyedDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND, keys, lengths, site, p, inplace):  # type: ignore[no-untyped-def]
        ctx.arguments = (keys, lengths, site, p)
        if not inplace or not hidden_ND.is_contiguous():
            return _drop(hidden_ND * (1 / (1 - p)), keys, lengths, site, p)
        ctx.mark_dirty(hidden_ND)
        return _drop(hidden_ND.mul_(1 / (1 - p)), keys, lengths, site, p)

    @staticmethod
    def backward(ctx, grad_ND):  # type: ignore[no-untyped-def]
        keys, lengths, site, p = ctx.arguments
        return _drop(grad_ND * (1 / (1 - p)), keys, lengths, site, p), None, None, None, None, None


def _drop(scaled_ND: Tensor, keys: DropoutKeys, lengths: tuple[int, ...], site: int, p: float) -> Tensor:
    width = scaled_ND.shape[1]
    sizes = [length * width for length in lengths]
    keep = keys.keep(range(len(lengths)), sizes, site, p, scaled_ND.dtype)
    return apply_keep(scaled_ND.contiguous(), keep)


def dropout(
    hidden_ND: Tensor,
    keys: DropoutKeys | None,
    lengths: tuple[int, ...],
    site: int,
    p: float,
    *,
    inplace: bool = False,
) -> Tensor:
    """Drop hidden values of N tokens.

    Args:
        hidden_ND: tokens laid end to end.
        keys: keys of their sequences; None turns dropout off.
        lengths: number of tokens of each sequence.
        site: number of the place in the model.
        p: share of values to drop, in [0, 1).
        inplace: whether the values may be changed where they are, on the CPU: nothing else reads them,
            in a backward pass neither.

    Returns:
        A tensor of the same shape.
    """
    if keys is None or p == 0:
        return hidden_ND
    if hidden_ND.device.type != "cpu":
        return torch.nn.functional.dropout(hidden_ND, p)
    result: Tensor = _KeyedDropout.apply(hidden_ND, keys, lengths, site, p, inplace)  # type: ignore[no-untyped-call]
    return result
