"""What looks after one rank of a run, with a clock and a store of the test's own."""

import contextlib
import errno

import pytest
import torch.distributed as dist
from watch_doubles import LIMIT, Clock, Shelf

from maskwright.core.errors import DataError, Interrupted
from maskwright.parallel.world import World
from maskwright.training.watch import Watch, WorkerLost
from maskwright.training.watching import run_watch
from maskwright.training.watching.beats import Beat, Beats
from maskwright.training.watching.flight import read_earlier, read_flight
from maskwright.training.watching.run_watch import RunWatch, Surroundings, speaks_of_lost_rank


def surroundings(clock, **more):
    return Surroundings(clock=clock, threads=False, **more)


def make_watch(folder, rank=0, size=2, *, clock=None, shelf=None, **more):
    clock = clock or Clock()
    about = {"versions": {"maskwright": "1"}}
    store = (shelf or Shelf()) if size > 1 else None
    return RunWatch(folder, World(rank, size), LIMIT, about, store, surroundings(clock, **more))


def test_a_run_leaves_its_steps_and_its_end(tmp_path):
    watch = make_watch(tmp_path, size=1)
    for step in (1, 2):
        watch.begin(step)
        watch.phase("losses")
        watch.end(loss=2.0, grad_norm=1.0, lr=0.5, seconds=0.1)
    watch.phase("saving")
    watch.close()
    (flight,) = read_flight(tmp_path)
    last = flight.steps[-1]
    assert {name: last[name] for name in ("step", "phase", "loss", "grad_norm", "lr", "seconds")} == {
        "step": 2, "phase": "saving", "loss": 2.0, "grad_norm": 1.0, "lr": 0.5, "seconds": 0.1,
    }  # fmt: skip
    assert last["memory_peak_bytes"] > 0
    assert flight.header["versions"] == {"maskwright": "1"}
    assert flight.ending["reason"] == "the run is done"


@pytest.mark.parametrize("error", [DataError("no text"), ValueError("no"), RuntimeError("out of memory")])
def test_other_errors_pass_and_are_written_down(tmp_path, error):
    watch = make_watch(tmp_path)
    watch.begin(4)
    assert watch.failed(error) is error
    watch.close()
    ending = read_flight(tmp_path)[0].ending
    assert ending["reason"] == f"{type(error).__name__}: {error}"
    assert (ending["step"], ending["phase"]) == (4, "reading data")


def test_an_interrupt_passes_and_is_no_error_to_others(tmp_path):
    shelf = Shelf()
    watch = make_watch(tmp_path, shelf=shelf)
    stopped = Interrupted("stopped by SIGTERM")
    assert watch.failed(stopped) is stopped
    watch._beats.exchange()
    assert Beat.from_text(shelf.texts["watch--0"]).ending == "stopped"


def test_leaving_by_something_that_is_no_error_of_the_run_is_not_done(tmp_path):
    watch = make_watch(tmp_path, size=1)
    with pytest.raises(KeyboardInterrupt), contextlib.closing(watch):
        raise KeyboardInterrupt("twice")
    assert read_flight(tmp_path)[0].ending["reason"] == "KeyboardInterrupt: twice"


def test_a_failed_collective_names_the_rank_that_fell_silent(tmp_path):
    clock, shelf = Clock(), Shelf()
    other = Beats(shelf, 1, 2, 1.0, clock)
    other.move(7, "computing")
    other.exchange()

    def pause(seconds):
        clock.now += seconds
        watch._beats.exchange()

    watch = make_watch(tmp_path, clock=clock, shelf=shelf, pause=pause)
    watch.begin(7)
    pause(0.5)
    found = watch.failed(RuntimeError("[gloo/pair.cc:1] Connection closed by peer [127.0.0.1]"))
    assert isinstance(found, WorkerLost)
    assert found.exit_code == 1
    text = str(found)
    assert text.startswith("rank 1 has not been heard of for ")
    assert "its last step was 7 (computing); start the run again" in text
    assert "Connection closed by peer" in text
    assert "rank 1" in read_flight(tmp_path)[0].ending["reason"]


def test_a_failed_collective_blames_nobody_when_all_beat(tmp_path):
    clock, shelf = Clock(), Shelf()
    other = Beats(shelf, 1, 2, 1.0, clock)

    def pause(seconds):
        clock.now += seconds
        other.exchange()
        watch._beats.exchange()

    watch = make_watch(tmp_path, clock=clock, shelf=shelf, pause=pause)
    text = str(watch.failed(dist.DistBackendError("NCCL error")))
    assert text.startswith(
        "this rank could not reach another at step 0 (starting), though all of them are alive"
    )


def test_a_failed_collective_tells_of_the_error_of_the_other_rank(tmp_path):
    clock, shelf = Clock(), Shelf()
    other = Beats(shelf, 1, 2, 1.0, clock)
    other.end("error", "DataError: no text")
    other.exchange()
    watch = make_watch(tmp_path, clock=clock, shelf=shelf)
    watch._beats.exchange()
    text = str(watch.failed(RuntimeError("gloo: broken pipe")))
    assert text.startswith("rank 1 ended with an error at step 0 (starting): DataError: no text")


def test_what_speaks_of_a_lost_rank():
    caused = RuntimeError("backward failed")
    caused.__cause__ = dist.DistBackendError("x")
    assert speaks_of_lost_rank(caused)
    assert speaks_of_lost_rank(RuntimeError("Timed out waiting 4000ms for send operation to complete"))
    assert not speaks_of_lost_rank(RuntimeError("shape mismatch"))
    assert not speaks_of_lost_rank(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))


def test_an_error_of_ours_is_not_replaced_by_what_caused_it(tmp_path):
    error = DataError("no text")
    error.__cause__ = dist.DistNetworkError("x")
    assert make_watch(tmp_path).failed(error) is error


def test_the_watchdog_finds_a_silent_rank_and_ends_the_process(tmp_path, monkeypatch):
    clock, left = Clock(), []
    watch = make_watch(tmp_path, clock=clock, leave=left.append)
    watch.begin(1)
    for _ in range(13):
        clock.now += 5.0
        watch._beats.exchange()
        trouble = watch.look()
    assert trouble == "rank 1 has not been heard of for 65 s; it was still starting"
    told = []
    monkeypatch.setattr(run_watch.os, "write", lambda file, text: told.append((file, text.decode())))
    watch._give_up(trouble)
    assert left == [1]
    assert told[0][0] == 2
    assert told[0][1].startswith(f"rank 0 gives up: {trouble}; start the run again")
    assert read_flight(tmp_path)[0].ending["reason"] == trouble
    stacks = (tmp_path / "flight" / "rank-00000.stacks.txt").read_text()
    assert "test_the_watchdog_finds" in stacks


def test_the_process_ends_even_where_nothing_can_be_written(tmp_path, monkeypatch):
    left = []
    watch = make_watch(tmp_path, leave=left.append)

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_watch.os, "write", refuse)
    with pytest.raises(OSError, match="No space"):
        watch._give_up("trouble")
    assert left == [1]


def test_a_watchdog_that_was_stopped_blames_nobody(tmp_path):
    clock = Clock()
    watch = make_watch(tmp_path, clock=clock)
    watch._beats.exchange()
    clock.now += 10_000
    assert watch.look() is None
    assert watch.look() is None


def test_the_first_step_and_long_phases_have_ten_times_the_patience(tmp_path):
    watch = make_watch(tmp_path)
    watch.begin(5)
    assert watch._patience() == 10 * LIMIT
    watch.begin(6)
    assert watch._patience() == LIMIT
    watch.phase("evaluating")
    assert watch._patience() == 10 * LIMIT


def test_a_phase_may_take_four_times_as_long_as_it_ever_did(tmp_path):
    clock = Clock()
    watch = make_watch(tmp_path, clock=clock)
    watch.begin(1)
    watch.begin(2)
    watch.phase("computing")
    clock.now += 100
    watch.phase("losses")
    watch.phase("computing")
    assert watch._patience() == 400
    watch.phase("losses")
    assert watch._patience() == LIMIT


def test_a_run_that_cannot_be_ended_is_ended(tmp_path):
    clock = Clock()
    watch = make_watch(tmp_path, clock=clock)
    watch.failed(ValueError("x"))
    for _ in range(6):
        clock.now += 20
        trouble = watch.look()
    assert trouble is None
    clock.now += 1
    assert watch.look() == "the run could not be ended in 121 s"


def test_a_start_puts_the_recorders_of_all_ranks_aside(tmp_path):
    for rank in range(3):
        make_watch(tmp_path, rank, 3).close()
    for rank in range(2):
        make_watch(tmp_path, rank, 2).close()
    assert [flight.header["processes"] for flight in read_flight(tmp_path)] == [2, 2]
    assert [flight.header["processes"] for flight in read_earlier(tmp_path)[0]] == [3, 3, 3]


def test_the_base_does_nothing():
    watch, error = Watch(), ValueError("x")
    watch.begin(1)
    watch.phase("x")
    watch.end(loss=1.0)
    watch.close()
    assert watch.busy([1.0, 2.0]) == ({}, None)
    assert watch.failed(error) is error


def test_the_seconds_of_all_ranks_are_compared(tmp_path):
    assert make_watch(tmp_path).busy([1.0, 1.5]) == ({"slowest_rank": 1, "straggler_ratio": 1.5}, None)
