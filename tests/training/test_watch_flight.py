"""The flight recorder: always readable, never larger, and no reason to fail."""

import errno
import json
import math
import os

import pytest

from maskwright.training.watching import flight
from maskwright.training.watching.flight import (
    KEPT_STEPS,
    FlightRecorder,
    describe_flight,
    flight_path,
    last_step,
    put_aside,
    read_earlier,
    read_flight,
)


def make(folder, rank=0, **header):
    return FlightRecorder(
        flight_path(folder, rank), {"rank": rank, "host": "here", **header}, lambda: 86400.0
    )


def test_only_the_last_steps_are_kept_in_order_and_the_file_does_not_grow(tmp_path):
    recorder = make(tmp_path)
    size = flight_path(tmp_path, 0).stat().st_size
    for step in range(1, KEPT_STEPS + 51):
        recorder.begin(step, "computing")
        recorder.note(phase="done", loss=1.0)
    (found,) = read_flight(tmp_path)
    assert [values["step"] for values in found.steps] == list(range(51, KEPT_STEPS + 51))
    assert flight_path(tmp_path, 0).stat().st_size == size


def test_every_line_is_json_from_the_first_moment(tmp_path):
    recorder = make(tmp_path, note="größer " * 200)
    recorder.begin(1, "x" * 1000)
    recorder.note(loss=math.nan, grad_norm=math.inf, lr=1e-3)
    recorder.finish("ü" * 10_000 + "\n\udcff", 1, "x" * 1000)
    lines = flight_path(tmp_path, 0).read_bytes().splitlines()
    values = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert len(values) == 2 + KEPT_STEPS
    assert (values[2]["loss"], values[2]["grad_norm"], values[2]["lr"]) == ("nan", "inf", 1e-3)
    assert values[2]["phase"] == "x" * 60
    assert values[1]["reason"] == "ü" * 400
    assert all(len(line) + 1 == 512 for line in lines[2:])


def test_a_line_lies_within_a_page(tmp_path):
    make(tmp_path, note="x" * 3000)
    data, start = flight_path(tmp_path, 0).read_bytes(), 0
    for line in data.splitlines(keepends=True)[2:]:
        start = data.index(line, start)
        assert start // 4096 == (start + len(line) - 1) // 4096
        start += len(line)


def test_a_line_that_does_not_fit_loses_its_last_values(tmp_path):
    recorder = make(tmp_path)
    recorder.begin(1, "computing")
    recorder.note(loss=1.0, text="x" * 1000)
    (found,) = read_flight(tmp_path)
    assert found.steps[0]["loss"] == 1.0
    assert "text" not in found.steps[0]


def test_recorders_of_the_last_starts_are_kept(tmp_path):
    put_aside(tmp_path)  # there is nothing yet
    assert read_earlier(tmp_path) == []
    for start in range(1, 14):
        for rank in (0, 1):
            make(tmp_path, rank).begin(start, "computing")
        flight_path(tmp_path, 1).with_suffix(".stacks.txt").write_text("here")
        put_aside(tmp_path)
    assert read_flight(tmp_path) == []
    make(tmp_path).begin(20, "computing")
    assert read_flight(tmp_path)[0].steps[0]["step"] == 20
    earlier = read_earlier(tmp_path)
    assert [[found.steps[0]["step"] for found in ranks] for ranks in earlier] == [
        [start, start] for start in range(13, 3, -1)
    ]
    kept = tmp_path / "flight" / "earlier"
    assert sorted(path.name for path in kept.iterdir()) == [f"{start:04d}" for start in range(4, 14)]
    assert (kept / "0013" / "rank-00001.stacks.txt").read_text() == "here"


def test_recorders_that_cannot_be_kept_are_told_and_overwritten(tmp_path, caplog):
    make(tmp_path).begin(7, "computing")
    (tmp_path / "flight" / "earlier").write_text("in the way")
    put_aside(tmp_path)
    assert "flight: recorders of the start before are not kept: " in caplog.text
    make(tmp_path)
    assert read_flight(tmp_path)[0].steps == []


def test_nothing_is_noted_before_the_first_step(tmp_path):
    make(tmp_path).note(phase="resuming")
    assert read_flight(tmp_path)[0].steps == []


def test_a_folder_that_cannot_be_made_is_told_and_nothing_else_happens(tmp_path, caplog):
    (tmp_path / "flight").write_text("in the way")
    recorder = make(tmp_path)
    recorder.begin(1, "computing")
    recorder.finish("x", 1, "y")
    recorder.close()
    assert len(caplog.records) == 1
    assert "nothing is recorded there any more: " in caplog.text


def test_a_full_disk_is_told_once(tmp_path, caplog, monkeypatch):
    recorder = make(tmp_path)

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(flight.os, "pwrite", refuse)
    recorder.begin(1, "computing")
    recorder.begin(2, "computing")
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text


def test_lines_that_a_dead_host_never_wrote_are_left_out(tmp_path):
    recorder = make(tmp_path)
    for step in (1, 2, 3):
        recorder.begin(step, "computing")
    path = flight_path(tmp_path, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\0" * 511 + b"\n"
    lines[5] = b"[1]".ljust(511) + b"\n"
    path.write_bytes(b"".join(lines))
    assert [values["step"] for values in read_flight(tmp_path)[0].steps] == [1, 3]


def test_the_last_step_of_a_recorder_that_is_not_there(tmp_path):
    assert last_step(flight_path(tmp_path, 3)) is None
    recorder = make(tmp_path)
    assert last_step(flight_path(tmp_path, 0)) is None
    recorder.begin(4, "saving")
    assert last_step(flight_path(tmp_path, 0))["phase"] == "saving"


def test_a_short_text_tells_where_each_rank_was_and_why_it_ended(tmp_path):
    first, second = make(tmp_path), make(tmp_path, 1)
    first.begin(3, "losses")
    first.note(loss=2.34567)
    first.finish("ValueError: no", 3, "losses")
    second.close()
    assert describe_flight(tmp_path) == (
        "rank 0 on here: last step 3 (losses) at 1970-01-02 00:00:00 UTC, loss 2.346; "
        "ended at 1970-01-02 00:00:00 UTC: ValueError: no\n"
        "rank 1 on here: no step; did not say how it ended"
    )
    assert describe_flight(tmp_path / "nothing") == ""
