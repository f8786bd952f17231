"""A process that is lost before the first step or after the last."""

import pytest

from maskwright.core.errors import DataError
from maskwright.parallel.world import SOLO, World
from maskwright.training.watch import WorkerLost
from maskwright.training.watching import tell_of_lost_ranks

CLOSED = RuntimeError(
    "[gloo/pair.cc:5] Connection closed by peer [10.0.0.2]. This is typically caused by ...\nx"
)


def test_a_collective_that_fails_is_told_as_a_lost_process():
    with pytest.raises(WorkerLost) as caught, tell_of_lost_ranks(World(2, 4)):
        raise CLOSED
    text = str(caught.value)
    assert text.startswith(
        "another process died or cannot be reached, while the run began or ended (this is rank 2 of 4); look "
    )
    assert text.endswith("(what failed here: [gloo/pair.cc:5] Connection closed by peer [10.0.0.2])")
    assert caught.value.__cause__ is CLOSED


@pytest.mark.parametrize(
    ("world", "error"),
    [
        (SOLO, CLOSED),
        (World(0, 2), RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        (World(0, 2), DataError("no text")),
        (World(0, 2), WorkerLost("rank 1 is gone")),
    ],
)
def test_everything_else_passes(world, error):
    with pytest.raises(type(error)) as caught, tell_of_lost_ranks(world):
        raise error
    assert caught.value is error
