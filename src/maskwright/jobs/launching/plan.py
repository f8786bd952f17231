"""What is to be started and on how many processes, as plain values that every place understands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import OutputExistsError
from ...core.files import storage_errors, write_text

__all__ = ["LaunchPlan", "Machines", "dns_name", "write_script"]

MARK = "# Written by maskwright launch"
_LONGEST_NAME = 40  # a pod adds the numbers of its job and of itself, and 63 is the limit of DNS


@dataclass(frozen=True)
class Machines:
    """How many processes there are, and where.

    Attributes:
        nodes: machines, at most.
        processes: on each of them.
        gpus: GPUs that a machine gives to the run; 0 for the CPU. Each process has one.
        least: machines that are enough to go on; None for all of them.
    """

    nodes: int = 1
    processes: int = 1
    gpus: int = 0
    least: int | None = None

    @property
    def fewest(self) -> int:
        """Machines without which nothing runs."""
        return self.nodes if self.least is None else self.least

    @property
    def elastic(self) -> bool:
        """Whether machines may come and go."""
        return self.fewest < self.nodes

    @property
    def sizes(self) -> list[int]:
        """Numbers of processes that the run may have."""
        return [nodes * self.processes for nodes in range(self.fewest, self.nodes + 1)]

    def arguments(self) -> list[str]:
        """The options that say the same on the command line."""
        count = ["--gpus", str(self.gpus)] if self.gpus else ["--processes", str(self.processes)]
        return ["--nodes", str(self.nodes), *count]


@dataclass(frozen=True)
class LaunchPlan:
    """A run and the machines for it.

    Attributes:
        arguments: the recipe, if there is one, and changes to it, as given on the command line.
        output: the run's folder.
        name: of the run, for people and schedulers.
        machines: what it runs on.
        restarts: how often all workers are started again after a crash.
        force: go on although settings or data changed.
        json: let rank 0 print its results as JSON.
        timeout_seconds: after which workers give up on one of them.
    """

    arguments: tuple[str, ...]
    output: Path
    name: str
    machines: Machines = Machines()
    restarts: int = 3
    force: bool = False
    json: bool = False
    timeout_seconds: float = 600.0

    def worker_arguments(self) -> list[str]:
        """The command of a worker, after `maskwright`."""
        flags = [*(["--force"] if self.force else []), *(["--json"] if self.json else [])]
        return ["pretrain", *self.arguments, f"--output={self.output}", "--resume", *flags]

    def launch_arguments(self, arguments: tuple[str, ...] | None = None) -> list[str]:
        """The command of the launcher on each machine, after `maskwright`.

        Args:
            arguments: recipe and changes, where they are not those of the plan.
        """
        given = self.arguments if arguments is None else arguments
        return [
            *("launch", "pretrain", *given, f"--output={self.output}", "--resume"),
            *(["--force"] if self.force else []),
            *self.machines.arguments(),
            *("--restarts", str(self.restarts)),
        ]


def dns_name(text: str) -> str:
    """A name that Kubernetes accepts: small letters, digits and hyphens; what is left of a text.

    Args:
        text: any text.

    Source: DNS labels, RFC 1123.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return name if name[:1].isalpha() else f"run-{name}".rstrip("-")


def write_script(path: Path, text: str) -> None:
    """Write a script, but over no other file than one that was written here.

    Args:
        path: the script.
        text: its content, with our mark in it.

    Raises:
        OutputExistsError: the file is somebody else's.
    """
    assert MARK in text
    with storage_errors(path):
        if path.exists() and (path.is_dir() or MARK not in path.read_text("utf-8", "replace")):
            raise OutputExistsError(
                f"{path}: exists and was not written by maskwright launch; choose another name with --script"
            )
    write_text(path, text)
