"""The processes of a run, and the small things that they tell each other.

Every process is started by torchrun or something that sets the same variables. Ranks that share each
layer (tensor parallel) lie side by side and see the same samples; the others see different ones. What
is told here are a few numbers a step, over the CPU, so that no accelerator is waited for.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..core.errors import ConfigError, MaskwrightError

__all__ = ["SOLO", "World", "describe_launch", "open_world", "require_one_process"]

_PATIENCE = timedelta(days=1)
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """Who this process is among all.

    Attributes:
        rank: number of this process.
        size: number of processes.
        local_rank: number of this process on its machine.
        tensor: ranks that share each layer and see the same samples.
        group: processes that talk over the CPU; None where there is one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    tensor: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Number of this process among those that see different samples."""
        return self.rank // self.tensor

    @property
    def data_size(self) -> int:
        """How many see different samples."""
        return self.size // self.tensor

    @property
    def leaders(self) -> range:
        """The first of all ranks that see the same samples."""
        return range(0, self.size, self.tensor)

    def share_layers(self, tensor: int) -> World:
        """The same processes, so many of which share each layer.

        Raises:
            ConfigError: they cannot be dealt out so.
        """
        if self.size % tensor:
            raise ConfigError(
                f'"parallel.tensor" is {tensor}, but {self.size} processes are no multiple of it; start '
                "another number of processes or change it"
            )
        return replace(self, tensor=tensor)

    def check_replicas(self, replicas: int) -> None:
        """See that copies of the model can be dealt out over the processes that see other samples.

        Raises:
            ConfigError: they cannot.
        """
        if self.data_size % replicas:
            raise ConfigError(
                f'"parallel.replicas" is {replicas}, but {self.data_size} processes see other samples, '
                "which is no multiple of it; change one of them"
            )

    def exchange(self, values: Sequence[float]) -> list[list[float]]:
        """Tell all ranks some numbers, and hear theirs.

        Args:
            values: as many on every rank.

        Returns:
            The numbers of each rank in float64, by rank.
        """
        mine = torch.tensor(values, dtype=torch.float64)
        if self.group is None:
            return [mine.tolist()]
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(rows, mine, group=self.group)
        return [row.tolist() for row in rows]

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add numbers up over all ranks that see different samples.

        Args:
            values: by name; the same names on every rank.
        """
        names = sorted(values)
        rows = self.exchange([values[name] for name in names])
        return {name: sum(rows[rank][index] for rank in self.leaders) for index, name in enumerate(names)}

    def gather(self, value: Any) -> list[Any]:
        """Tell all ranks anything that can be pickled, and hear theirs; slower than `exchange`."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def from_main(self, value: Any) -> Any:
        """The value that rank 0 has."""
        if self.group is None:
            return value
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def on_main(self, work: Callable[[], None]) -> None:
        """Let rank 0 do something; where it fails, all ranks fail with its error."""
        failure: BaseException | None = None
        if self.is_main:
            try:
                work()
            except MaskwrightError as error:
                failure = error
        failure = self.from_main(failure)
        if failure is not None:
            raise failure

    def patient(self) -> World:
        """The same processes, who wait for each other as long as it takes; one that is gone is noticed.

        All call this at the same time, as it makes a group of their own.
        """
        if self.group is None:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=_PATIENCE))

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.exchange([0.0])


SOLO = World()


def describe_launch(environment: Mapping[str, str] = os.environ) -> World:
    """Who this process is, as torchrun says in its variables; nothing is opened.

    Raises:
        ConfigError: only some of the variables are there, or one is not a number.
    """
    if "WORLD_SIZE" not in environment:
        return SOLO
    missing = [name for name in _VARIABLES if name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is set in the environment, but {', '.join(missing)} is not; start the processes "
            "with maskwright launch or torchrun"
        )
    try:
        rank, size, local = (int(environment[name]) for name in _VARIABLES[:3])
    except ValueError as error:
        raise ConfigError(
            f"RANK, WORLD_SIZE or LOCAL_RANK in the environment is no number: {error}"
        ) from error
    return World(rank, size, local)


def require_one_process(work: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to do on several processes what is made for one.

    Args:
        work: what it is, as the beginning of "runs on one process".
        environment: where torchrun leaves its variables.

    Raises:
        ConfigError: there are several.
    """
    size = describe_launch(environment).size
    if size > 1:
        raise ConfigError(f"{work} runs on one process, but {size} were started; start it without torchrun")


@contextlib.contextmanager
def open_world(device: str, timeout_seconds: float) -> Iterator[World]:
    """Meet the other processes of the run, and part from them at the end.

    Args:
        device: `cpu` or `cuda`; on CUDA the process takes the device with its local number.
        timeout_seconds: how long a process waits for another before it gives up.

    Raises:
        ConfigError: the variables of the launch make no sense.
    """
    world = describe_launch()
    if world.size == 1 and "RANK" not in os.environ:
        yield world
        return
    if device == "cuda":
        torch.cuda.set_device(world.local_rank)
    patience = timedelta(seconds=timeout_seconds)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    already = dist.is_initialized()
    if not already:
        dist.init_process_group(backend, timeout=patience)
    try:
        yield replace(world, group=dist.new_group(backend="gloo", timeout=patience))
    finally:
        if not already:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dist.destroy_process_group()
