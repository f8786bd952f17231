"""MinHash signatures: short rows of numbers whose share of equal places estimates how alike texts are.

A text becomes the set of its runs of `ngram` words (shingles; see `words` for what a word is, also in
Chinese). The similarity of two texts is the Jaccard index of their sets. Places of a signature agree
with that probability, so the estimate has a standard error of sqrt(s * (1 - s) / num_perm): 0.035 at
a similarity of 0.8 with 128 places. A text shorter than a shingle is one shingle; a text without any
word has no signature and resembles nothing.

`rensa` computes the signatures (R-MinHash, a fast similarity sketch: its time hardly depends on the
number of places). Equal texts have equal signatures on every machine, for one version of its algorithm.

Cost: about 8 ns a byte of English; 4 bytes a place on disk, so 512 bytes a document with 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import MissingDependencyError
from .words import Hashes, Numbers, Words, hash_words, rolling_hashes

__all__ = ["ALGORITHM", "has_signature", "shingles", "signatures", "similarity"]

Signatures = npt.NDArray[np.uint32]

# Part of the fingerprint of whatever depends on signatures; rensa's own version is its last number.
ALGORITHM = "words-1 rensa-r-2"

_SEED = 20_260_801
_EMPTY = np.uint32(0xFFFF_FFFF)


def shingles(words: Words, ngram: int) -> tuple[Hashes, Numbers]:
    """Hash the shingles of texts.

    Args:
        words: of D texts.
        ngram: words in a shingle.

    Returns:
        uint64 (N,) hashes, repetitions included, and int64 (D + 1,) offsets of the texts among them.
    """
    first, stop = words.offsets[:-1], words.offsets[1:]
    counts = stop - first
    short = (counts > 0) & (counts < ngram)
    taken = np.ones(len(words.hashes), bool)
    ends = stop[counts > 0]
    for shift in range(1, ngram):  # runs that start on a text's last words reach over its end
        taken[np.maximum(ends - shift, first[counts > 0])] = False
    runs = [block[taken[start : start + len(block)]] for start, block in rolling_hashes(words.hashes, ngram)]
    num_shingles = np.where(short, 1, np.maximum(counts - ngram + 1, 0))
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(num_shingles)))
    if not short.any():
        return np.concatenate([np.empty(0, np.uint64), *runs]), offsets
    hashes = np.empty(offsets[-1], np.uint64)
    is_short = np.zeros(len(hashes), bool)
    is_short[offsets[:-1][short]] = True
    hashes[~is_short] = np.concatenate([np.empty(0, np.uint64), *runs])
    hashes[is_short] = _whole(words.hashes, first[short], counts[short])
    return hashes, offsets


def signatures(texts: Sequence[str], num_perm: int = 128, ngram: int = 5) -> Signatures:
    """Compute the signatures of texts.

    Args:
        texts: any number. Many at once are faster; memory is about 20 times their characters.
        num_perm: places of a signature.
        ngram: words in a shingle.

    Returns:
        uint32 (D, num_perm). They do not depend on which texts come together.

    Raises:
        MissingDependencyError: rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise MissingDependencyError("rensa", "corpus", "find near-duplicates") from error
    hashes, offsets = shingles(hash_words(texts), ngram)
    if not len(texts):
        return np.empty((0, num_perm), np.uint32)
    matrix: Any = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.astype(np.uint64), num_perm, _SEED
    )
    return np.array(matrix.to_rows(), np.uint32)


def has_signature(signatures: Signatures) -> npt.NDArray[np.bool_]:
    """Which rows belong to texts with at least one word: bool (D,)."""
    return np.asarray((signatures != _EMPTY).any(axis=1))


def similarity(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Estimate the Jaccard index of pairs of texts.

    Args:
        left: uint32 (N, num_perm).
        right: uint32 of the same shape, or one row for all.

    Returns:
        float64 (N,), from 0 to 1.
    """
    return np.asarray(np.count_nonzero(left == right, axis=1) / left.shape[1])


def _whole(hashes: Hashes, first: Numbers, counts: Numbers) -> Hashes:
    """One hash for each of some short texts; different from the runs of longer ones."""
    totals = counts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift in range(int(counts.max())):
        inside = shift < counts
        word = hashes[np.where(inside, first + shift, 0)]
        totals = np.where(inside, totals * np.uint64(0xD1B5_4A32_D192_ED05) + word, totals)
    return totals
