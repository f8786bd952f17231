"""Stages: what is done stays done, what does not fit is done again, shares divide the tasks."""

import pytest
from runner_helpers import calls, squares_stage

from maskwright.core.errors import DataError
from maskwright.corpus.runners import Share, ShareDone, make_runner, run_stage

ONE = make_runner("local", 1)


def test_results_in_order_of_the_tasks(tmp_path):
    done = run_stage(squares_stage(tmp_path), ONE)
    assert [result["square"] for result in done.results] == [0, 1, 4, 9, 16, 25]
    assert done.executed == 6


def test_a_second_run_does_nothing(tmp_path):
    run_stage(squares_stage(tmp_path), ONE)
    again = run_stage(squares_stage(tmp_path), ONE)
    assert again.executed == 0
    assert [result["square"] for result in again.results] == [0, 1, 4, 9, 16, 25]
    assert all(len(calls(tmp_path, number)) == 1 for number in range(6))


@pytest.mark.parametrize("harm", ["marker gone", "marker torn", "file gone", "file short", "request"])
def test_only_what_is_not_whole_is_done_again(tmp_path, harm):
    run_stage(squares_stage(tmp_path), ONE)
    marker, file = tmp_path / "work/squares/task-00002.json", tmp_path / "work/squares/2.txt"
    request = "other" if harm == "request" else "r"
    if harm == "marker gone":
        marker.unlink()
    elif harm == "marker torn":
        marker.write_bytes(marker.read_bytes()[:30])
    elif harm == "file gone":
        file.unlink()
    elif harm == "file short":
        file.write_text("")
    run_stage(squares_stage(tmp_path, request=request), ONE)
    counts = [len(calls(tmp_path, number)) for number in range(6)]
    assert counts == ([2] * 6 if harm == "request" else [1, 1, 2, 1, 1, 1])
    assert file.read_text() == "4"


def test_shares_divide_the_tasks(tmp_path):
    stage = squares_stage(tmp_path)
    for task in range(2):
        with pytest.raises(ShareDone, match=f"share {task} of 2 is done") as done:
            run_stage(stage, ONE, Share("squares", task, 2))
        assert done.value.done == 3
    assert [stage.result(number) is not None for number in range(6)] == [True] * 6


def test_a_share_of_a_later_stage_needs_this_one(tmp_path):
    stage = squares_stage(tmp_path)
    with pytest.raises(ShareDone):
        run_stage(stage, ONE, Share("squares", 0, 2))
    wanted = r"stage squares has 3 of 6 tasks unfinished \(1, 3, 5\), and encode comes after it"
    with pytest.raises(DataError, match=wanted):
        run_stage(stage, ONE, Share("encode", 0, 1))


def test_work_that_cannot_travel_shows_with_one_worker(tmp_path):
    stage = squares_stage(tmp_path, kill_once=lambda: None)
    with pytest.raises(Exception, match="pickle"):
        run_stage(stage, ONE)
