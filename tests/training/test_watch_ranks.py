"""The watch on real processes that come to no harm."""

import pytest

from maskwright.training.watching import RunWatch, read_flight
from ranks import run_ranks

pytestmark = pytest.mark.distributed


def run_quietly(world, folder):
    watch = RunWatch(folder, world, 30.0, {})
    for step in range(1, 6):
        watch.begin(step)
        watch.phase("computing")
        world.exchange([1.0])
        watch.end(loss=1.0)
    world.wait()
    watch._beats.end("")  # beats at once, and waits until that is told
    world.wait()
    watch._beats.end("")
    heard = [(one.beat.place.step, one.beat.place.phase) for one in watch._beats.heard]
    trouble = watch.look()
    world.wait()
    watch.close()
    return heard[1 - world.rank], trouble, watch._guard.is_alive(), watch._beats._thread.is_alive()


def test_ranks_hear_of_each_other_and_part_in_peace(tmp_path):
    told = run_ranks(2, run_quietly, tmp_path)
    assert told == [((5, "done"), None, False, False)] * 2
    flights = read_flight(tmp_path)
    assert [flight.ending["reason"] for flight in flights] == ["the run is done"] * 2
    assert [values["step"] for values in flights[1].steps] == [1, 2, 3, 4, 5]
