"""A set of 128-bit digests that costs about as many bytes as the digests themselves.

A Python set of 16-byte strings takes some 100 bytes a member. This one is a flat array with open
addressing and linear probing, between a third and two thirds full: 24 to 48 bytes a member, about
two microseconds a lookup.
"""

from __future__ import annotations

from array import array

__all__ = ["DigestSet"]

_FIRST_SLOTS = 1 << 10


class DigestSet:
    """A growing set of 16-byte digests. The digests must already be spread evenly, as hashes are."""

    def __init__(self) -> None:
        self._slots = _FIRST_SLOTS
        self._words = array("Q", bytes(16 * self._slots))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def num_bytes(self) -> int:
        """Memory of the table, in bytes."""
        return len(self._words) * self._words.itemsize

    def add(self, digest: bytes) -> bool:
        """Add a digest of 16 bytes.

        Returns:
            Whether it was new.
        """
        assert len(digest) == 16
        high = int.from_bytes(digest[:8], "little")
        # Two zero words mark a free slot, so the one digest that looks like it is moved aside.
        low = int.from_bytes(digest[8:], "little") or 1
        if not self._insert(high, low):
            return False
        self._size += 1
        if 3 * self._size > 2 * self._slots:
            self._grow()
        return True

    def _insert(self, high: int, low: int) -> bool:
        words, mask = self._words, self._slots - 1
        slot = high & mask
        while words[2 * slot + 1]:
            if words[2 * slot] == high and words[2 * slot + 1] == low:
                return False
            slot = (slot + 1) & mask
        words[2 * slot], words[2 * slot + 1] = high, low
        return True

    def _grow(self) -> None:
        old = self._words
        self._slots *= 2
        self._words = array("Q", bytes(16 * self._slots))
        for place in range(0, len(old), 2):
            if old[place + 1]:
                self._insert(old[place], old[place + 1])
