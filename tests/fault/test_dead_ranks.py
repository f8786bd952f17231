"""A rank is killed, stopped or hangs: the others end within the time-out, and name it and its last step."""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time

import pytest

from maskwright.training.watching import describe_flight, read_flight
from ranks import environment, free_port

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

LIMIT, FATAL_STEP = 4.0, 5
# Generous: how long a process may take to start, and the others to end, on a busy machine.
PATIENCE = 120.0


def meet_fate(fate):
    if fate == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fate])


def steps(world, watch, folder, victim, fate):
    """What the loop does, with a rank that meets its fate in a step."""
    for step in range(1, 1000):
        watch.begin(step)
        if (world.rank, step) == (victim, FATAL_STEP):
            (folder / "fate").touch()
            meet_fate(fate)
        watch.phase("computing")
        world.exchange([1.0])
        watch.end(loss=1.0 / step, grad_norm=1.0, lr=0.1, seconds=0.5)


def rank_of_a_run(variables, folder, victim, fate):
    os.environ.update(variables)
    sys.stderr = (folder / f"stderr-{variables['RANK']}").open("w", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    from maskwright.parallel.world import open_world
    from maskwright.training.watch import WorkerLost
    from maskwright.training.watching import RunWatch

    with open_world("cpu", LIMIT) as world:
        watch = RunWatch(folder, world, LIMIT, {"versions": {"maskwright": "1"}})
        try:
            steps(world, watch, folder, victim, fate)
        except Exception as error:
            error = watch.failed(error)
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(error.exit_code if isinstance(error, WorkerLost) else 99)
        finally:
            watch.close()


def run(folder, size, victim, fate):
    """Exit codes of the processes and what they said, by rank; the victim is ended here."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    processes = [
        context.Process(target=rank_of_a_run, args=(environment(rank, size, port), folder, victim, fate))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    survivors = [process for rank, process in enumerate(processes) if rank != victim]
    end = time.monotonic() + PATIENCE
    try:
        for process in survivors:
            process.join(max(0.0, end - time.monotonic()))
        assert (folder / "fate").exists(), [path.read_text() for path in folder.glob("stderr-*")]
        codes = [process.exitcode for process in survivors]
        if fate == "hang":
            processes[victim].join(max(0.0, end - time.monotonic()))
            codes.append(processes[victim].exitcode)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return codes, [(folder / f"stderr-{rank}").read_text() for rank in range(size)]


def test_a_killed_rank_is_named_by_all_others_and_leaves_its_last_step(tmp_path):
    codes, said = run(tmp_path, 3, 1, "kill")
    assert codes == [1, 1]
    for rank in (0, 2):
        assert "WorkerLost: rank 1 has not been heard of for" in said[rank], said[rank]
        assert "its last step was 5 (reading data)" in said[rank]
        assert "rank 0" not in said[rank] or rank == 0
    flights = read_flight(tmp_path)
    assert [flight.header["rank"] for flight in flights] == [0, 1, 2]
    killed = flights[1]
    assert [values["step"] for values in killed.steps] == [1, 2, 3, 4, 5]
    assert killed.steps[-1]["phase"] == "reading data"
    assert killed.steps[-2]["loss"] == 0.25
    assert not killed.ending
    assert "WorkerLost" not in killed.path.read_text()
    assert "rank 1" in flights[0].ending["reason"]
    for line in killed.path.read_text().splitlines():
        json.loads(line)
    assert "rank 1 on" in describe_flight(tmp_path)
    assert "did not say how it ended" in describe_flight(tmp_path)


def test_a_stopped_rank_is_named(tmp_path):
    codes, said = run(tmp_path, 2, 1, "stop")
    assert codes == [1]
    assert "rank 1 has not been heard of for" in said[0], said[0]
    assert "its last step was 5 (reading data)" in said[0]


def test_a_stopped_rank_that_keeps_the_store_is_named(tmp_path):
    codes, said = run(tmp_path, 2, 0, "stop")
    assert codes == [1]
    assert "rank 0, which keeps the store of the run, has not answered for" in said[1], said[1]
    assert "its last step was 5 (reading data)" in said[1] or "its last step was 4" in said[1]


def test_a_rank_that_hangs_is_named_and_ends_itself_with_its_stacks(tmp_path):
    codes, said = run(tmp_path, 2, 1, "hang")
    assert codes == [1, 1]
    # Either it was still there when the collective of rank 0 ran out of time, or it had just given itself up.
    assert re.search(r"rank 1 (has stood|ended with an error) at step 5 \(reading data\)", said[0]), said[0]
    stacks = (tmp_path / "flight" / "rank-00001.stacks.txt").read_text()
    assert "meet_fate" in stacks
    assert "rank 1 gives up: " in said[1]
    assert read_flight(tmp_path)[1].ending["step"] == 5
