"""What recorders say together: who stopped first, who is missing, and what cannot be read."""

import itertools
import json

import pytest

from maskwright.core.errors import DataError, StorageError
from maskwright.training.watching import summarize_flight
from maskwright.training.watching.flight import FlightRecorder, flight_path

VERSIONS = {"maskwright": "1", "torch": "2"}


def fly(folder, rank, *, steps=2, how=None, size=2, clock=None, versions=VERSIONS):
    """A recorder of a rank that did some steps and ended in some way, or said nothing of it."""
    clock = clock or itertools.count(1000.0).__next__
    header = {"rank": rank, "processes": size, "host": f"node-{rank}", "pid": 40 + rank, "versions": versions}
    recorder = FlightRecorder(flight_path(folder, rank), {**header, "started": "then"}, clock)
    for step in range(1, steps + 1):
        recorder.begin(step, "computing")
        recorder.note(loss=1.0 / step)
    if how is not None:
        recorder.finish(f"because of {how}", steps, "losses", how)
    recorder.close()
    return recorder


def test_what_each_rank_did_last(tmp_path):
    fly(tmp_path, 0, how="lost")
    fly(tmp_path, 1, steps=3)
    found = summarize_flight(tmp_path)
    assert (found["processes"], found["versions"], found["other_versions"]) == (2, VERSIONS, {})
    assert (found["missing"], found["damaged"], found["stopped_first"]) == ([], [], 1)
    assert found["ranks"] == [
        {
            "rank": 0,
            "host": "node-0",
            "pid": 40,
            "started": "then",
            "step": 2,
            "phase": "computing",
            "time": 1003.0,
            "loss": 0.5,
            "how": "lost",
            "reason": "because of lost",
            "ended": 1004.0,
        },
        {
            "rank": 1,
            "host": "node-1",
            "pid": 41,
            "started": "then",
            "step": 3,
            "phase": "computing",
            "time": 1005.0,
            "loss": 1 / 3,
            "how": "",
            "reason": None,
            "ended": None,
        },
    ]
    assert found["lines"][1].startswith(
        "rank 1 on node-1: last step 3 (computing) at 1970-01-01 00:16:45 UTC"
    )
    json.dumps(found)


@pytest.mark.parametrize(
    ("hows", "first"),
    [
        (("done", "done"), None),
        ((None, None), None),  # it goes on, or all were killed together
        (("done", None), 1),
        (("lost", None), 1),
        (("lost", "lost"), None),  # the network between them, or a rank that left nothing
        (("lost", "error"), 1),
        ((None, "error"), 1),  # killed because the other failed
        (("stopped", "lost"), 0),
        (("stopped", None), 1),
        (("error", "error"), 1),  # the earlier of the two
    ],
)
def test_who_stopped_first(tmp_path, hows, first):
    for rank, how in enumerate(hows):
        fly(tmp_path, rank, how=how, clock=itertools.count(1000.0 - rank).__next__)
    assert summarize_flight(tmp_path)["stopped_first"] == first


def test_ranks_without_a_recorder_and_other_versions_are_named(tmp_path):
    fly(tmp_path, 0, size=4)
    fly(tmp_path, 2, size=4, versions={"torch": "3"})
    flight_path(tmp_path, 3).write_bytes(b"\0" * 3000)
    found = summarize_flight(tmp_path)
    assert (found["missing"], found["damaged"]) == ([1], [3])
    assert found["other_versions"] == {2: {"torch": "3"}}
    assert [rank["rank"] for rank in found["ranks"]] == [0, 2]
    assert len(found["lines"]) == 2


def test_lines_of_another_form_are_left_out(tmp_path):
    fly(tmp_path, 0, size=1)
    path = flight_path(tmp_path, 0)
    wrong = [
        {"kind": ["step"], "step": 9},
        {"kind": "step", "step": "9", "phase": "x", "time": 1},
        {"kind": "step", "step": 9, "phase": "x"},
        {"kind": "ending", "reason": 1, "time": 1},
        {"kind": "other"},
        {"step": 9},
    ]
    path.write_bytes(path.read_bytes() + "\n".join(json.dumps(line) for line in wrong).encode())
    (rank,) = summarize_flight(tmp_path)["ranks"]
    assert (rank["step"], rank["how"]) == (2, "")


def test_an_ending_of_a_former_version_is_an_error(tmp_path):
    fly(tmp_path, 0, size=1, how="error")
    path = flight_path(tmp_path, 0)
    path.write_bytes(path.read_bytes().replace(b'"how": "error", ', b""))
    assert summarize_flight(tmp_path)["ranks"][0]["how"] == "error"


def test_a_run_without_recorders(tmp_path):
    with pytest.raises(
        DataError, match=r"flight: holds no flight recorder \(rank-\*\.jsonl\); a pretraining run"
    ):
        summarize_flight(tmp_path)


def test_recorders_that_cannot_be_read(tmp_path):
    fly(tmp_path, 0)
    path = flight_path(tmp_path, 0)
    path.write_text("torn")
    with pytest.raises(
        DataError, match=r"rank-00000\.jsonl: has no readable header, nor has any other recorder"
    ):
        summarize_flight(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"rank-00000\.jsonl"):
        summarize_flight(tmp_path)
