"""Processes on this machine.

Workers are started afresh (spawn), never forked, so no lock of the parent is inherited in a locked
state. A worker that is killed from outside, as the kernel does when memory runs out, is replaced and
its task done again, a few times. Workers end with the parent, however that ends.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ...core.errors import MaskwrightError
from ...core.log import get_logger, set_up_logging

__all__ = ["WorkerDiedError", "limit_threads", "run_locally"]

_log = get_logger(__name__)
_MAX_DEATHS = 3
_PR_SET_PDEATHSIG = 1
_THREAD_SETTINGS = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_execute: Callable[[int], None] | None = None


class WorkerDiedError(MaskwrightError):
    """Worker processes die again and again, from outside or for want of memory."""

    exit_code = 2


def run_locally(
    execute: Callable[[int], None], numbers: Sequence[int], on_done: Callable[[int], None], *, workers: int
) -> None:
    """Call `execute` for every number, in several processes.

    Args:
        execute: picklable; called in a worker.
        numbers: the tasks to do.
        on_done: called here with each number when it is done.
        workers: how many processes; with 1 everything happens in this one.

    Raises:
        WorkerDiedError: workers died several times without finishing a task in between.
        MaskwrightError: what a task raised; tasks that had not begun are left undone.
    """
    if workers == 1 or len(numbers) == 1:
        for number in numbers:
            execute(number)
            on_done(number)
        return
    left = list(numbers)
    deaths = 0
    while left:
        done = _run_pool(execute, left, on_done, min(workers, len(left)))
        left = [number for number in left if number not in done]
        deaths = 0 if done else deaths + 1
        if left and deaths == _MAX_DEATHS:
            raise WorkerDiedError(
                f"tasks {', '.join(map(str, left[:5]))}: the worker process died {deaths} times, perhaps for "
                "want of memory; lower workers, then run the same command with --resume"
            )
        if left:
            _log.warning("a worker process died; %d tasks are done again or go on", len(left))


def _run_pool(
    execute: Callable[[int], None], numbers: Sequence[int], on_done: Callable[[int], None], workers: int
) -> set[int]:
    """Do tasks until all are done or a worker dies. Returns the numbers that were done."""
    done: set[int] = set()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (pickle.dumps(execute), os.getpid()))
    try:
        futures = {pool.submit(_call, number): number for number in numbers}
        waiting: set[Future[None]] = set(futures)
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                done.add(futures[future])
                on_done(futures[future])
    except BrokenProcessPool:
        pool.shutdown(cancel_futures=True)
    except BaseException:
        _stop(pool)
        raise
    else:
        pool.shutdown()
    return done


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: a task that is cut off leaves nothing that counts."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(cancel_futures=True)


def _start(execute: bytes, parent: int) -> None:
    """Make a worker ready: one thread each, no answer to Ctrl-C but its own end, and no orphans."""
    global _execute
    limit_threads()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    set_up_logging()
    _execute = pickle.loads(execute)


def limit_threads() -> None:
    """Keep the libraries of this worker to one thread, because there are as many workers as CPUs."""
    for name in _THREAD_SETTINGS:
        os.environ.setdefault(name, "1")


def _call(number: int) -> None:
    assert _execute is not None
    _execute(number)
