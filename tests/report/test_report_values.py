import json

import pytest

from maskwright.report.values import items, mapping, number, numbers, read_metrics, read_object


@pytest.mark.parametrize("value", [None, True, "3", float("nan"), float("inf"), [1], 10**400])
def test_what_is_no_finite_number(value):
    assert number(value) is None


def test_numbers_are_all_or_nothing():
    assert number(3) == 3.0
    assert numbers([1, 2.5]) == [1.0, 2.5]
    assert numbers([1, None]) == []
    assert numbers("12") == []


def test_wrong_types_become_empty():
    assert mapping([1]) == {}
    assert items({"a": 1}) == []


def test_objects_are_read_or_explained(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    assert read_object(None, "audit.json", "prepared data") == ({}, "No prepared data was given")
    assert read_object(folder, "audit.json", "") == ({}, "data/audit.json is missing")
    (folder / "audit.json").write_text("[1]")
    assert read_object(folder, "audit.json", "") == ({}, "data/audit.json holds a list, expected an object")
    (folder / "audit.json").write_text('{"a": ')
    value, problem = read_object(folder, "audit.json", "")
    assert value == {}
    assert problem is not None
    assert problem.startswith("data/audit.json cannot be used: is not valid JSON")
    (folder / "audit.json").write_text('{"a": NaN}')
    assert read_object(folder, "audit.json", "")[1] is None


def write(folder, *lines):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return read_metrics(folder)


def train(step, loss):
    return {"kind": "train", "step": step, "loss": loss}


def test_a_torn_line_costs_only_itself(tmp_path):
    metrics = write(tmp_path, train(1, 5.0), train(2, 4.0), '{"kind": "train", "step": 3, "lo')
    assert metrics.trained("loss") == [(1, 5.0), (2, 4.0)]
    assert metrics.unreadable_lines == 1


def test_a_torn_line_that_a_resumed_run_wrote_on_costs_only_itself(tmp_path):
    metrics = write(tmp_path, train(1, 5.0), '{"kind": "tr{"kind": "train", "step": 2}', train(3, 3.0))
    assert [x for x, _ in metrics.trained("loss")] == [1, 3]


def test_lines_without_step_or_kind_or_object_are_unreadable(tmp_path):
    metrics = write(
        tmp_path, train(1, 5.0), {"kind": "train"}, {"step": 2}, "7", train(True, 1.0), "[" * 5000
    )
    assert metrics.unreadable_lines == 5
    assert len(metrics.train) == 1


def test_work_lost_by_a_resume_goes_and_events_stay(tmp_path):
    metrics = write(
        tmp_path,
        *(train(step, 10.0 - step) for step in range(1, 7)),
        {"kind": "event", "step": 6, "message": "interrupted"},
        {"kind": "event", "step": 3, "message": "resumed"},
        train(4, 0.5),
    )
    assert metrics.trained("loss") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 0.5)]
    assert [event["message"] for event in metrics.events] == ["interrupted", "resumed"]


def test_what_each_start_says_of_the_data_stands_once(tmp_path):
    said = {"kind": "event", "step": 0, "message": "samples: few"}
    again = {"kind": "event", "step": 2, "message": "resumed"}
    other = {**said, "message": "samples: many"}
    metrics = write(tmp_path, said, train(2, 1.0), said, again, said, again, other)
    assert [event["message"] for event in metrics.events] == [
        "samples: few",
        "resumed",
        "resumed",
        "samples: many",
    ]


def test_values_that_are_not_finite_become_none(tmp_path):
    metrics = write(
        tmp_path, train(1, float("nan")), train(2, None), train(3, 1.0), {"kind": "train", "step": 4}
    )
    assert metrics.trained("loss") == [(1, None), (2, None), (3, 1.0)]


def test_missing_and_empty_metrics_say_so(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    assert read_metrics(None).problem == "No pretraining run was given"
    assert read_metrics(folder).problem == "run/metrics.jsonl is missing"
    assert write(folder).problem == "run/metrics.jsonl has no usable lines"
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    assert read_metrics(folder).problem == "run/metrics.jsonl has no usable lines"
