"""A clock, a store and ranks that do as a test tells them."""

import torch.distributed as dist

from maskwright.training.watching.beats import Beats
from maskwright.training.watching.verdicts import find_trouble

LIMIT = 60.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Shelf:
    """A store in a dictionary; it answers as long as nobody says otherwise."""

    def __init__(self):
        self.texts, self.down = {}, False

    def _answer(self):
        if self.down:
            raise dist.DistNetworkError("Connection reset")

    def set(self, key, value):
        self._answer()
        self.texts[key] = value.encode()

    def check(self, keys):
        self._answer()
        return all(key in self.texts for key in keys)

    def multi_get(self, keys):
        self._answer()
        return [self.texts[key] for key in keys]


class Fleet:
    """Some ranks in one process; time goes on, and they beat, only when told."""

    def __init__(self, size):
        self.clock, self.shelf = Clock(), Shelf()
        self.ranks = [Beats(self.shelf, rank, size, 1.0, self.clock) for rank in range(size)]
        self.beat(range(size))

    def beat(self, ranks):
        """All of them write before the last of them has read."""
        for rank in ranks:
            self.ranks[rank].exchange()
        for rank in ranks:
            self.ranks[rank]._read(self.shelf)

    def pass_time(self, seconds, beating):
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            self.beat(beating)

    def trouble(self, rank=0, keeper="rank 0", patience=10 * LIMIT):
        return find_trouble(self.ranks[rank], self.clock(), LIMIT, patience, keeper)
