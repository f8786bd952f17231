"""Keyed, stateless randomness: the same (key, index) gives the same bits everywhere.

There is no generator and no hidden state. A value depends on its key and its index alone, so data
order and masks do not depend on how many workers, ranks or micro-batches asked for them, and any
point of a run is reached without replaying what came before. NumPy and torch return identical
values: both do wrapping 64-bit arithmetic. Cost: about twenty vector operations an element.
"""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["derive_key", "hash64", "permute", "to_range", "to_unit"]

ArrayT = TypeVar("ArrayT", "npt.NDArray[np.int64]", "torch.Tensor")

# The constants of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014, figure 17, written as the signed 64-bit integers that torch knows.
_GAMMA = np.uint64(0x9E3779B97F4A7C15).astype(np.int64)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9).astype(np.int64)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB).astype(np.int64)
_FEISTEL_ROUNDS = 6


def derive_key(*parts: int | str) -> int:
    """Make one 64-bit key from the names and numbers that identify a purpose.

    Args:
        *parts: integers and strings, such as `(seed, "mask", epoch)`. Order and type matter.

    Returns:
        A signed 64-bit integer, the same on every machine and Python version.

    Raises:
        TypeError: a part is neither an integer nor a string.
    """
    text = "\x1f".join(_name_part(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _name_part(part: int | str) -> str:
    """Write one part so that no two lists of parts read the same; NumPy integers count as int."""
    if isinstance(part, str):
        return "str:" + part.replace("\x1e", "\x1e\x1e").replace("\x1f", "\x1e\x1f")
    return f"int:{operator.index(part)}"


def _logical_shift(values: ArrayT, bits: int) -> ArrayT:
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: ArrayT) -> ArrayT:
    """The finaliser of SplitMix64: a bijection on 64-bit integers that looks random."""
    values = (values ^ _logical_shift(values, 30)) * int(_MULTIPLY_1)
    values = (values ^ _logical_shift(values, 27)) * int(_MULTIPLY_2)
    return values ^ _logical_shift(values, 31)


def hash64(key: int, index: ArrayT) -> ArrayT:
    """Hash each index under a key.

    Args:
        key: from `derive_key`.
        index: int64 array or tensor of any shape.

    Returns:
        int64 of the same shape and kind, uniform over all 64 bits.

    Raises:
        TypeError: `index` is not int64.
    """
    if "int64" not in str(index.dtype) or "uint" in str(index.dtype):
        raise TypeError(f"index has dtype {index.dtype}, expected int64")
    second = derive_key(key, "second")
    with np.errstate(over="ignore"):
        inner = _mix(index * int(_GAMMA) + key)
        return _mix(inner ^ second)


def to_unit(bits: ArrayT) -> ArrayT:
    """Turn hashed bits into numbers in [0, 1), exactly representable in float64.

    Args:
        bits: int64 from `hash64`.

    Returns:
        float64 of the same shape; the top 53 bits of each input divided by 2**53.
    """
    top = _logical_shift(bits, 11)
    if isinstance(top, np.ndarray):
        return cast(ArrayT, top.astype(np.float64) * 2.0**-53)
    return top.double() * 2.0**-53


def to_range(bits: ArrayT, low: int, high: int) -> ArrayT:
    """Map hashed bits onto integers in [low, high) by multiplying and shifting.

    Args:
        bits: int64 from `hash64`.
        low: smallest value, included.
        high: largest value, excluded; at most `low + 2**31`.

    Returns:
        int64 of the same shape. The bias is below 2**-32 times the width of the range.
    """
    assert 0 < high - low <= 2**31
    return low + _logical_shift(_logical_shift(bits, 32) * (high - low), 32)


def permute(key: int, index: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Look up positions of a keyed random permutation of `range(size)` without storing it.

    A balanced Feistel network over the smallest even number of bits that holds `size`; values
    that fall outside are sent through again until they fall inside (cycle walking). Source:
    Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 2.

    Args:
        key: from `derive_key`.
        index: int64 array of positions in `[0, size)`.
        size: length of the permutation, from 1 to 2**62.

    Returns:
        int64 array of the same shape: the permuted positions.

    Raises:
        IndexError: a position is outside `[0, size)`, or the size is.
    """
    if not 1 <= size <= 2**62:
        raise IndexError(f"the size of a permutation is {size}, expected 1 to 2**62")
    if index.size and (index.min() < 0 or index.max() >= size):
        raise IndexError(f"positions must lie in [0, {size})")
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = [derive_key(key, "feistel", number) for number in range(_FEISTEL_ROUNDS)]
    result = np.asarray(_feistel(round_keys, index, half_bits))
    outside = result >= size
    while outside.any():
        result[outside] = _feistel(round_keys, result[outside], half_bits)
        outside = result >= size
    return result


def _feistel(keys: list[int], values: npt.NDArray[np.int64], half_bits: int) -> npt.NDArray[np.int64]:
    mask = (1 << half_bits) - 1
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (hash64(key, right) & mask)
    return (left << half_bits) | right
