"""A process that is lost while a run begins or ends, when nobody watches and no step can be named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...parallel.world import World
from ..watch import WorkerLost
from .run_watch import speaks_of_lost_rank

__all__ = ["tell_of_lost_ranks"]


@contextlib.contextmanager
def tell_of_lost_ranks(world: World) -> Iterator[None]:
    """Turn a collective that fails inside the block into an error that says what it means.

    Args:
        world: all processes.

    Raises:
        WorkerLost: another process died or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not speaks_of_lost_rank(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise WorkerLost(
            "another process died or cannot be reached, while the run began or ended (this is rank "
            f"{world.rank} of {world.size}); look at what the others said last, often that memory ran out, "
            "then start the run again: it goes on from its newest checkpoint, if it has one "
            f"(what failed here: {said[:300]})"
        ) from error
