"""Runs are read while they are written: torn lines, replaced files, resumes, and what state they are in."""

import json
import os

import pytest

import maskwright
from maskwright.core.errors import DataError
from maskwright.jobs.monitor import MAX_POINTS, Monitor, RunReader, find_runs

NOW = 1_000_000.0


def train(step, loss=2.0, **fields):
    return {"kind": "train", "step": step, "loss": loss, "step_seconds": 0.5, "seconds": step * 0.5, **fields}


def event(step, message):
    return {"kind": "event", "step": step, "message": message}


def text(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


class Run:
    """A run's folder that a test writes to, with a clock of its own."""

    def __init__(self, folder, name="base", steps=100):
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.metrics = self.folder / "metrics.jsonl"
        self.reader = RunReader(self.folder)
        if steps:
            (self.folder / "config.yaml").write_text(f"format_version: 1\nsteps: {steps}\n")

    def write(self, *records, end=""):
        with self.metrics.open("a") as file:
            file.write(text(*records) + end)
        os.utime(self.metrics, (NOW, NOW))

    def look(self, later=1.0):
        self.reader.poll()
        return self.reader.snapshot(NOW + later)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_the_newest_numbers(run):
    run.write(
        event(0, "resumed"), train(10, 3.0), train(20, 2.5, lr=1e-3, tokens_per_second=50.0, peak_share=0.5)
    )
    run.write({"kind": "evaluation", "step": 20, "loss": 2.75, "accuracy": 0.25, "perplexity": 15.6})
    found = run.look()
    assert (found["run"], found["folder"], found["state"]) == ("base", str(run.folder), "running")
    assert (found["step"], found["total_steps"], found["share_done"]) == (20, 100, 0.2)
    assert (found["seconds"], found["seconds_left"], found["age_seconds"]) == (10.0, 40.0, 1.0)
    assert (found["loss"], found["lr"], found["tokens_per_second"], found["peak_share"]) == (
        2.5,
        1e-3,
        50.0,
        0.5,
    )
    assert found["validation"] == {"step": 20, "loss": 2.75, "accuracy": 0.25, "perplexity": 15.6}
    assert found["losses"] == [(10, 3.0), (20, 2.5)]
    assert found["validations"] == [(20, 2.75)]
    assert found["events"] == [{"step": 0, "message": "resumed", "warning": False}]


def test_it_reads_on_where_it_ended(run, monkeypatch):
    run.write(train(10))
    run.look()
    taken = []
    honest = run.reader._take
    monkeypatch.setattr(run.reader, "_take", lambda chunk: (taken.append(chunk), honest(chunk)))
    run.write(train(20, 1.5))
    assert run.look()["loss"] == 1.5
    assert b"".join(taken) == text(train(20, 1.5)).encode()
    run.look()
    assert len(taken) == 1


def test_a_torn_last_line_is_read_when_it_is_whole(run):
    line = text(train(20, 1.25))
    run.write(train(10), end=line[:17])
    assert run.look()["step"] == 10
    run.write(end=line[17:])
    assert (run.look()["step"], run.look()["loss"]) == (20, 1.25)


def test_lines_that_are_nothing_are_passed_over(run):
    run.write(end='{"step": 1, "lo\n[1]\n{"kind": "train"}\n\xff\n\n')
    run.write(train(10), {"kind": "new", "step": 11}, {"kind": "train", "step": "12"})
    assert run.look()["step"] == 10


def test_small_chunks_say_the_same(run, monkeypatch):
    monkeypatch.setattr("maskwright.jobs.monitor._CHUNK_BYTES", 7)
    run.write(*(train(step) for step in range(1, 30)))
    assert [step for step, _ in run.look()["losses"]] == list(range(1, 30))


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_file_that_was_replaced_is_read_from_its_start(run, count):
    """Shorter, as long, and longer than what was there."""
    run.write(*(train(step, 9.0) for step in range(1, 6)))
    run.look()
    run.metrics.write_text(text(*(train(step, 7.0) for step in range(1, count + 1))))
    found = run.look()
    assert found["losses"] == [(step, 7.0) for step in range(1, count + 1)]


def test_a_run_that_begins_anew_waits(run):
    run.write(train(50))
    run.look()
    run.metrics.unlink()
    found = run.look()
    assert (found["state"], found["step"], found["losses"]) == ("waiting", 0, [])


def test_a_run_that_is_not_there_yet(tmp_path):
    reader = RunReader(tmp_path / "later")
    reader.poll()
    found = reader.snapshot(NOW)
    assert (found["state"], found["age_seconds"], found["total_steps"]) == ("waiting", None, None)
    run = Run(tmp_path, "later")
    run.write(train(10))
    reader.poll()
    assert (reader.snapshot(NOW)["state"], reader.snapshot(NOW)["total_steps"]) == ("running", 100)


def test_storage_that_fails_for_a_moment_keeps_what_is_known(run, monkeypatch):
    run.write(train(10))
    run.look()

    def refuse(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refuse)
        assert run.look()["step"] == 10


def test_steps_done_again_after_a_resume_replace_the_earlier_ones(run):
    run.write(train(10, 3.0), train(20, 2.0), train(30, 1.0), event(15, "resumed"), train(20, 2.5))
    found = run.look()
    assert found["losses"] == [(10, 3.0), (20, 2.5)]
    assert found["step"] == 20


def test_memory_stays_flat(run):
    run.write(*(train(step) for step in range(1, 3 * MAX_POINTS)))
    found = run.look()
    assert len(found["losses"]) <= MAX_POINTS
    assert found["losses"][-1][0] == 3 * MAX_POINTS - 1


def test_numbers_that_are_not_finite_are_left_out(run):
    run.write(train(10, None), train(20, "2"), train(30, True))
    found = run.look()
    assert "loss" not in found
    assert found["losses"] == []


class TestStates:
    def test_finished(self, run):
        run.write(train(90))
        for name in ("summary.json", "evaluation.json"):
            (run.folder / name).write_text("{}")
            found = run.look(later=10**6)
            assert (found["state"], found["share_done"]) == ("finished", 1.0)
            (run.folder / name).unlink()

    def test_stopped_until_it_goes_on(self, run):
        run.write(train(10), event(12, "stopped by SIGINT after saving a checkpoint"))
        assert run.look(later=10**6)["state"] == "stopped"
        run.write(event(12, "resumed from the checkpoint of step 12"), train(20))
        assert run.look()["state"] == "running"

    @pytest.mark.parametrize(
        ("records", "later", "state"),
        [
            ([train(10), train(20)], 119, "running"),
            ([train(10), train(20)], 121, "stale"),
            ([train(10), train(1010)], 4999, "running"),  # ten pauses of five hundred seconds
            ([train(10), train(1010)], 5001, "stale"),
            ([event(0, "samples: ...")], 1799, "running"),  # the first step may take its time
            ([event(0, "samples: ...")], 1801, "stale"),
        ],
    )
    def test_stale_by_its_own_pace(self, run, records, later, state):
        run.write(*records)
        assert run.look(later)["state"] == state

    @pytest.mark.parametrize(
        ("message", "warning"),
        [
            ("WARNING: mask rate: 1 %", True),
            ("the gradient is not finite; the step was skipped", True),
            ("resumed from the checkpoint of step 8", False),
        ],
    )
    def test_events_that_are_warnings(self, run, message, warning):
        run.write(event(3, message))
        assert run.look()["events"][0]["warning"] is warning


class TestHowLong:
    def test_a_run_with_a_budget_says_its_share(self, run):
        run.write(train(10, share_done=0.25, seconds=600.0))
        found = run.look()
        assert (found["share_done"], found["seconds_left"]) == (0.25, 1800.0)

    def test_the_record_knows_better_than_the_config(self, run):
        run.write(train(10, total_steps=40))
        assert run.look()["total_steps"] == 40

    @pytest.mark.parametrize("content", [None, "epochs: 3\n", "steps: [", "steps: many\n"])
    def test_a_length_that_nobody_knows(self, tmp_path, content):
        run = Run(tmp_path, steps=None)
        if content is not None:
            (run.folder / "config.yaml").write_text(content)
        run.write(train(10))
        found = run.look()
        assert (found["total_steps"], found["share_done"], found["seconds_left"]) == (None, None, None)


class TestFinding:
    def test_a_folder_of_runs(self, tmp_path):
        for name in ("b", "a", "demo/pretrain"):
            Run(tmp_path, name).write(train(1))
        (tmp_path / "notes").mkdir()
        assert [name for name, _ in find_runs(tmp_path)] == ["a", "b", "demo/pretrain"]

    def test_a_run_is_itself(self, run, monkeypatch):
        run.write(train(1))
        assert find_runs(run.folder) == [("base", run.folder)]
        monkeypatch.chdir(run.folder)
        from pathlib import Path

        assert find_runs(Path()) == [("base", Path())]

    def test_what_is_no_run(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=r"file: is a file, expected the folder of a run"):
            find_runs(tmp_path / "file")
        (tmp_path / "manifest.json").write_text("{}")
        with pytest.raises(DataError, match="holds prepared data, not a run; look at it with maskwright"):
            Monitor([tmp_path])

    def test_runs_that_begin_later_are_found_and_the_busy_come_first(self, tmp_path):
        done = Run(tmp_path, "a")
        done.write(train(100))
        (done.folder / "summary.json").write_text("{}")
        monitor = Monitor([tmp_path])
        assert [run["run"] for run in monitor.look(NOW)] == ["a"]
        Run(tmp_path, "b").write(train(3))
        Run(tmp_path, "c").write(train(3), event(3, "stopped by SIGTERM"))
        assert [run["run"] for run in monitor.look(NOW)] == ["b", "c", "a"]

    def test_the_same_run_twice_is_one(self, run):
        run.write(train(1))
        assert len(Monitor([run.folder, run.folder.parent, run.folder]).look(NOW)) == 1

    def test_a_real_run(self, pretrained):
        (found,) = maskwright.monitor(pretrained)
        assert (found["state"], found["step"], found["total_steps"]) == ("finished", 24, 24)
        assert found["validation"]["loss"] > 0
        assert len(found["losses"]) == 6
