"""Processes on this machine: all tasks done once, deaths survived, errors brought home."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runner_helpers import calls, squares_stage

from maskwright.core.errors import ConfigError, DataError, MissingDependencyError
from maskwright.corpus.runners import make_runner, run_stage
from maskwright.corpus.runners.local import WorkerDiedError

TWO = make_runner("local", 2)


def test_several_processes_do_every_task_once(tmp_path):
    done = run_stage(squares_stage(tmp_path), TWO)
    assert [result["square"] for result in done.results] == [0, 1, 4, 9, 16, 25]
    pids = [calls(tmp_path, number) for number in range(6)]
    assert all(len(pid) == 1 and pid != [str(os.getpid())] for pid in pids)


def test_one_worker_is_this_process(tmp_path):
    run_stage(squares_stage(tmp_path, count=1), TWO)
    assert calls(tmp_path, 0) == [str(os.getpid())]


@pytest.mark.fault
def test_a_killed_worker_is_replaced(tmp_path, caplog):
    done = run_stage(squares_stage(tmp_path, kill_once=(3,)), TWO)
    assert [result["square"] for result in done.results] == [0, 1, 4, 9, 16, 25]
    assert len(calls(tmp_path, 3)) == 2
    assert "a worker process died" in caplog.text


@pytest.mark.fault
def test_a_task_that_always_kills_its_worker_ends_the_run(tmp_path):
    with pytest.raises(WorkerDiedError, match="died 3 times, perhaps for want of memory; lower workers"):
        run_stage(squares_stage(tmp_path, kill_always=(5,)), TWO)
    assert all((tmp_path / f"work/squares/{number}.txt").exists() for number in range(5))


def test_an_error_of_a_task_comes_home(tmp_path):
    with pytest.raises(DataError, match="task 4: the input is wrong; mend it"):
        run_stage(squares_stage(tmp_path, fail=(4,)), TWO)
    with pytest.raises(MissingDependencyError, match="left_pad is not installed"):
        run_stage(squares_stage(tmp_path, request="other", missing=(2,)), TWO)


@pytest.mark.parametrize(
    ("name", "workers", "message"),
    [
        ("local", 0, "workers is 0, expected at least 1"),
        ("pigeons", 1, "runner is 'pigeons', expected local"),
    ],
)
def test_senseless_runners(name, workers, message):
    with pytest.raises(ConfigError, match=message):
        make_runner(name, workers)


@pytest.mark.fault
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_workers_die_with_their_parent(tmp_path):
    for number in range(2):
        os.mkfifo(tmp_path / f"alive-{number}")
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from runner_helpers import Hang\n"
        "from maskwright.corpus.runners.local import run_locally\n"
        "if __name__ == '__main__':\n"
        "    run_locally(Hang(Path(sys.argv[1])), [0, 1], print, workers=2)\n"
    )
    command = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as parent:
        # Each worker holds the writing end of a pipe, and says that it does; its end is the pipe's end.
        pipes = [(tmp_path / f"alive-{number}").open("rb") for number in range(2)]
        assert [pipe.read(1) for pipe in pipes] == [b"x", b"x"]
        os.kill(parent.pid, signal.SIGKILL)
        assert [pipe.read() for pipe in pipes] == [b"", b""]
        for pipe in pipes:
            pipe.close()
