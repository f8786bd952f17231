"""A worker that does not outlive its launcher: `python -m ...tied LAUNCHER MODULE ARGUMENT...`

A launcher that is killed outright can tell its workers nothing, and torchrun gives each a session of its own,
so that no terminal tells them either. The worker looks at who its parent is, which is another process from
the moment at which the launcher is gone. It is then asked to save and stop, as by SIGTERM, and killed if it
has not stopped in time. Works wherever there are parents; costs one thread that looks once a second.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Tie", "main", "tied_command"]

# As long as the launcher would wait for those that save.
_PATIENCE_SECONDS = 120.0
_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class Tie:
    """Watches one process, its parent.

    Attributes:
        launcher: number of the process.
        parent: asks for the parent's.
        send: sends a signal to this process.
        wait: waits for some seconds.
    """

    launcher: int
    parent: Callable[[], int] = os.getppid
    send: Callable[[int], None] = lambda number: os.kill(os.getpid(), number)
    wait: Callable[[float], object] = threading.Event().wait

    def watch(self) -> None:
        """Wait until the launcher is gone, then end this process: first by asking, then by force."""
        while self.parent() == self.launcher:
            self.wait(_INTERVAL_SECONDS)
        line = f"the launcher (process {self.launcher}) is gone; this worker saves and stops\n"
        os.write(2, line.encode())
        self.send(signal.SIGTERM)
        self.wait(_PATIENCE_SECONDS)
        self.send(signal.SIGKILL)

    def start(self) -> None:
        """Watch from a thread of its own."""
        threading.Thread(target=self.watch, name="launcher watch", daemon=True).start()


def tied_command(arguments: Sequence[str]) -> list[str]:
    """The command of a worker that is tied to this process, which starts it.

    Args:
        arguments: a module and its arguments.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


def main() -> None:
    """Run a module as `python -m` does, tied to the process with the number before it."""
    launcher, module, *arguments = sys.argv[1:]
    Tie(int(launcher)).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
