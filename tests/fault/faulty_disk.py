"""A disk below the standard library, of which every operation that changes something can be acted upon."""

import io
import os
import threading

CHANGING = ("fsync", "mkdir", "rename", "replace")
REMOVING = ("unlink", "rmdir")


class _Stream:
    """A file that asks before each write and flush."""

    def __init__(self, stream, touch):
        self._stream, self._touch = stream, touch

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, data):
        self._touch()
        return self._stream.write(data)

    def flush(self):
        self._touch()
        self._stream.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()


class FaultyDisk:
    """Counts operations while it is entered, and acts at each of them.

    Args:
        act: called with the number of the operation, from one on, before it is done.
        removing: whether removing files and folders counts too.
    """

    def __init__(self, act=lambda number: None, *, removing=False):
        self.act, self.count, self.lock = act, 0, threading.Lock()
        self.names = CHANGING + (REMOVING if removing else ())

    def _touch(self):
        with self.lock:
            self.count += 1
            number = self.count
        self.act(number)

    def _asking(self, honest):
        def call(*arguments, **options):
            self._touch()
            return honest(*arguments, **options)

        return call

    def __enter__(self):
        self.honest = {name: getattr(os, name) for name in self.names}
        for name, honest in self.honest.items():
            setattr(os, name, self._asking(honest))
        self.open = io.open

        def open_file(file, mode="r", *arguments, **options):
            if "w" not in mode and "x" not in mode:
                return self.open(file, mode, *arguments, **options)
            self._touch()
            return _Stream(self.open(file, mode, *arguments, **options), self._touch)

        io.open = open_file
        return self

    def __exit__(self, *_):
        for name, honest in self.honest.items():
            setattr(os, name, honest)
        io.open = self.open


def refuse(number, at, *, until=None):
    """What to do at operations: fail with an error number from one operation to another."""

    def act(operation):
        if at <= operation <= (at if until is None else until):
            raise OSError(number, os.strerror(number))

    return act
