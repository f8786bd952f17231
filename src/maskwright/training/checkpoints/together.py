"""Work that all ranks do at the same time, and whose failure on one is the failure of all.

What ranks find out goes to rank 0 alone, and each gets its own answer: with many ranks nobody else has
to hold what all of them said.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ...core.errors import StorageError, UserError
from ...core.files import storage_errors
from ...parallel.world import World

__all__ = ["all_do", "consult", "refusals", "tell_all"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")


def consult(
    world: World,
    ask: Callable[[], Question],
    answer: Callable[[list[Question]], list[Answer]],
) -> Answer:
    """Every rank asks, rank 0 answers each; where one of them fails, all fail with its error.

    Args:
        world: all ranks call this at the same time.
        ask: runs on every rank.
        answer: runs on rank 0 with what all asked, by rank; as many answers, by rank.

    Returns:
        The answer to this rank.

    Raises:
        Exception: the error of the first rank that failed.
    """
    if world.group is None:
        return answer([ask()])[0]
    question, mine = _attempt(ask)
    questions: list[Any] | None = [None] * world.size if world.is_main else None
    dist.gather_object((question, _portable(mine)), questions, dst=0, group=world.group)
    replies: list[Any] | None = None
    if questions is not None:
        failure = next((error for _, error in questions if error is not None), None)
        answers: list[Answer] | None = None
        if failure is None:
            answers, own = _attempt(lambda: answer([question for question, _ in questions]))
            mine, failure = own, _portable(own)
        replies = [(None if answers is None else answers[rank], failure) for rank in range(world.size)]
    box: list[Any] = [None]
    dist.scatter_object_list(box, replies, src=0, group=world.group)
    reply, failure = box[0]
    if failure is not None:
        raise failure from mine
    found: Answer = reply
    return found


def tell_all(world: World, work: Callable[[], Answer]) -> Answer:
    """Let rank 0 find something out, and tell all; where it fails, all fail with its error."""
    return consult(world, lambda: None, lambda asked: [work()] * len(asked))


def all_do(world: World, work: Callable[[], Answer]) -> Answer:
    """Do something on every rank; where it fails on one, it fails on all with its error."""
    found: list[Answer] = []
    consult(world, lambda: found.append(work()), lambda done: done)
    return found[0]


def _attempt(work: Callable[[], Answer]) -> tuple[Answer | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> Exception | None:
    """The error, or one that says the same, if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(repr(error))
    return error


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn every refusal of the operating system inside the block into `StorageError`.

    Args:
        path: what is being written; named where the refusal names nothing better.

    Raises:
        StorageError: the storage refused.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = _refusal(error)
        if cause is None:
            raise
        try:
            with storage_errors(path):
                raise cause
        except OSError as unknown:
            said = unknown.strerror or unknown
            raise StorageError(
                f"{path}: {said}; check the storage, then run the same command again"
            ) from error


def _refusal(error: BaseException) -> BaseException | None:
    """The refusal of the system, or the user's interrupt, inside what torch wraps around it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError | KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause
