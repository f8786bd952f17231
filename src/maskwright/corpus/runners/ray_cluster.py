"""A Ray cluster: the one that `RAY_ADDRESS` names, or one started on this machine.

Ray does a task again on another worker when a worker or its node dies. All nodes must see the output
folder under the same path, as Ray moves no files here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ...core.errors import MaskwrightError, MissingDependencyError
from ...core.log import set_up_logging
from .local import WorkerDiedError, limit_threads

__all__ = ["run_on_ray"]

_MAX_RETRIES = 3
_CPUS_PER_TASK = 1


def run_on_ray(
    execute: Callable[[int], None],
    numbers: Sequence[int],
    on_done: Callable[[int], None],
    *,
    workers: int | None,
) -> None:
    """Call `execute` for every number on the cluster.

    Args:
        execute: picklable; called in a worker.
        numbers: the tasks to do.
        on_done: called here with each number when it is done.
        workers: most tasks at once; by default as many as the cluster has CPUs.

    Raises:
        MissingDependencyError: Ray is not installed.
        WorkerDiedError: a worker died again and again at one task.
        MaskwrightError: what a task raised.
    """
    ray = _connect(workers)
    remote = ray.remote(num_cpus=_CPUS_PER_TASK, max_retries=_MAX_RETRIES)(_call)
    shared = ray.put(execute)
    most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    left = list(reversed(numbers))
    running: dict[Any, int] = {}
    try:
        while left or running:
            while left and len(running) < most:
                number = left.pop()
                running[remote.remote(shared, number)] = number
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                number = running.pop(reference)
                _result(ray, reference, number)
                on_done(number)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _connect(workers: int | None) -> Any:
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "run the tasks on a Ray cluster") from None
    if not ray.is_initialized():
        # With an address Ray counts the CPUs of the cluster itself, and refuses to be told.
        here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        if os.environ.get("RAY_ADDRESS"):
            here = {}
        ray.init(log_to_driver=True, **here)
    return ray


def _result(ray: Any, reference: Any, number: int) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MaskwrightError):
            raise error.cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        raise WorkerDiedError(
            f"task {number}: its worker died {_MAX_RETRIES + 1} times, perhaps for want of memory; give the "
            "workers more, then run the same command with --resume"
        ) from error


def _call(execute: Callable[[int], None], number: int) -> None:
    limit_threads()
    set_up_logging()
    execute(number)
