"""Run a function on several processes that talk to each other, as torchrun would start them.

Each process is fresh, imports the test's module, and meets the others over 127.0.0.1. What a function
returns must be picklable, and travels as bytes: a tensor that travelled as torch sends it, as an open
file of the process that made it, would be lost if that process ended first. What a process raises is
raised here, with its rank.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0


class RankError(AssertionError):
    """A process failed; its traceback is the message."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def _child(
    function: Callable[..., Any], arguments: tuple[Any, ...], variables: dict[str, str], told: Any
) -> None:
    os.environ.update(variables)
    rank = int(variables["RANK"])
    try:
        from maskwright.parallel.world import open_world

        with open_world("cpu", 60.0) as world:
            told.put((rank, pickle.dumps(function(world, *arguments)), None))
    except BaseException:
        told.put((rank, None, traceback.format_exc()))


def run_ranks(
    size: int, function: Callable[..., Any], *arguments: Any, patience: float = PATIENCE
) -> list[Any]:
    """Call `function(world, *arguments)` on `size` processes; their results by rank.

    Raises:
        RankError: a process raised, died, or did not end in time.
    """
    context = multiprocessing.get_context("spawn")
    port, told = free_port(), context.Queue()
    processes = [
        context.Process(target=_child, args=(function, arguments, environment(rank, size, port), told))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    try:
        end = time.monotonic() + patience
        while len(results) < size:
            try:
                rank, value, failure = told.get(timeout=1.0)
            except queue.Empty:
                dead = [number for number, one in enumerate(processes) if one.exitcode not in (None, 0)]
                if dead and told.empty():
                    raise RankError(f"rank {dead[0]} died with {processes[dead[0]].exitcode}") from None
                if time.monotonic() > end:
                    raise RankError(
                        f"only ranks {sorted(results)} of {size} ended in {patience:g} s"
                    ) from None
                continue
            if failure is not None:
                raise RankError(f"rank {rank}:\n{failure}")
            results[rank] = pickle.loads(value)
    finally:
        for process in processes:
            process.join(timeout=10 if len(results) == size else 0)
            if process.is_alive():
                process.kill()
                process.join()
    return [results[rank] for rank in range(size)]
