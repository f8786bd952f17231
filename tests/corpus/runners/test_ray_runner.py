"""A real local Ray cluster: several workers, one killed in the middle, errors brought home."""

import os

import pytest
from runner_helpers import calls, squares_stage

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.corpus.runners import make_runner, run_stage

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    environment = {"PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": environment})
    yield ray
    ray.shutdown()


def test_all_tasks_are_done_by_several_workers(tmp_path, cluster):
    done = run_stage(squares_stage(tmp_path, count=12), make_runner("ray"))
    assert [result["square"] for result in done.results] == [number**2 for number in range(12)]
    pids = {pid for number in range(12) for pid in calls(tmp_path, number)}
    assert str(os.getpid()) not in pids


def test_a_killed_worker_is_replaced(tmp_path, cluster):
    done = run_stage(squares_stage(tmp_path, kill_once=(3,)), make_runner("ray", 2))
    assert [result["square"] for result in done.results] == [0, 1, 4, 9, 16, 25]
    assert len(calls(tmp_path, 3)) == 2


def test_an_error_of_a_task_comes_home(tmp_path, cluster):
    with pytest.raises(DataError, match="task 4: the input is wrong; mend it"):
        run_stage(squares_stage(tmp_path, fail=(4,)), make_runner("ray"))


def test_ray_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray is not installed.*maskwright\[ray\]"):
        run_stage(squares_stage(tmp_path), make_runner("ray"))
