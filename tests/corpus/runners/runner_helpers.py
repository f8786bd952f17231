"""Work that worker processes can import."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.core.files import write_text
from maskwright.core.inventory import describe_file
from maskwright.corpus.runners import Stage, TaskResult


@dataclass(frozen=True)
class Squares:
    """Writes the square of its number; counts its calls; may kill its worker or fail."""

    folder: Path
    kill_once: tuple[int, ...] = ()
    kill_always: tuple[int, ...] = ()
    fail: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()

    def __call__(self, number):
        with (self.folder / f"calls-{number}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        flag = self.folder / f"killed-{number}"
        if number in self.kill_always or (number in self.kill_once and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.fail:
            raise DataError(f"task {number}: the input is wrong; mend it")
        if number in self.missing:
            raise MissingDependencyError("left_pad", "corpus", "pad text")
        path = f"work/squares/{number}.txt"
        write_text(self.folder / path, str(number * number))
        return TaskResult({"square": number * number}, (describe_file(self.folder, path),))


@dataclass(frozen=True)
class Hang:
    """Holds a pipe open and never ends."""

    folder: Path

    def __call__(self, number):
        with (self.folder / f"alive-{number}").open("wb", buffering=0) as pipe:
            pipe.write(b"x")
            signal.pause()


def squares_stage(folder, count=6, request="r", **options):
    """A stage of squares."""
    return Stage(
        "squares", folder, request, [str(number) for number in range(count)], Squares(folder, **options)
    )


def calls(folder, number):
    """In which processes a task was called."""
    path = folder / f"calls-{number}"
    return path.read_text().split() if path.exists() else []
