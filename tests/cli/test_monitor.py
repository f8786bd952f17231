"""The view of runs: what it shows, in terminals of any width, in pipes, and how it is left."""

import io
import json
import os
import time

import pytest
from rich.cells import cell_len

from maskwright.cli import monitor as command_module
from maskwright.cli.monitor_view import duration, frame, sparkline

CHINESE = "罗伯塔-大模型-预训练-维基百科"
SNAPSHOT = {
    "run": "base",
    "folder": "runs/base",
    "state": "running",
    "age_seconds": 3.0,
    "step": 1200,
    "total_steps": 10_000,
    "share_done": 0.12,
    "seconds": 3_723.0,
    "seconds_left": 90_061.0,
    "loss": 5.2345,
    "accuracy": 0.215,
    "lr": 6e-4,
    "grad_norm": 1.234,
    "tokens_per_second": 12_345.6,
    "padding_share": 0.0625,
    "data_wait_share": 0.001,
    "peak_share": 0.553,
    "memory_bytes": 1_500_000_000,
    "memory_peak_bytes": 2_500_000_000,
    "device_memory_bytes": 700_000_000,
    "device_memory_peak_bytes": 40_000_000_000,
    "validation": {"step": 1000, "loss": 5.4321, "accuracy": 0.2},
    "losses": [(step, 10 - step / 200) for step in range(0, 1200, 10)],
    "validations": [(1000, 5.4321)],
    "events": [
        {"step": 5, "message": "too old to be shown", "warning": False},
        {"step": 10, "message": "resumed from the checkpoint of step 10", "warning": False},
        {
            "step": 20,
            "message": "WARNING: mask rate: 18 %\nof 20 tokens " + "masked " * 40,
            "warning": True,
        },
        {"step": 30, "message": "a third", "warning": False},
    ],
}
EMPTY = {
    "run": "new",
    "folder": "runs/new",
    "state": "waiting",
    "age_seconds": None,
    "step": 0,
    "total_steps": None,
    "share_done": None,
    "seconds": None,
    "seconds_left": None,
    "validation": {},
    "losses": [],
    "validations": [],
    "events": [],
}


def lines(found, width=100, height=None, **options):
    return [line.plain for line in frame(found, width, height, **options)]


def test_what_a_run_shows():
    shown = lines([SNAPSHOT], 200)
    assert shown[0].startswith("─ base ──")
    assert shown[0].rstrip(" ─").endswith("running")
    assert shown[1].split("   ") == [
        *("  step 1,200/10,000", "██" + "░" * 18 + " 12%"),
        *("for 1:02:03", "left 1 d 1:01:01"),
    ]
    values = shown[2].strip().split("   ")
    assert values[0] == "loss 5.2345"
    assert values[1].startswith("█")
    assert values[1].endswith("▁")
    assert values[2:] == ["accuracy 0.215", "validation 5.4321", "validation accuracy 0.200"]
    assert shown[3].strip().split("   ") == [
        *(
            "lr 6.00e-04",
            "grad norm 1.23",
            "tokens/s 12,346",
            "padding 6.2%",
            "of peak 55%",
            "data wait 0.1%",
        ),
        *("memory 1.5 GB peak 2.5 GB", "GPU memory 700 MB peak 40.0 GB"),
    ]
    assert shown[4] == "  step 10: resumed from the checkpoint of step 10"
    assert shown[5].startswith("  step 20: WARNING: mask rate: 18 % of 20 tokens masked")
    assert shown[5].endswith("…")
    assert len(shown) == 7


def test_warnings_stand_out():
    styles = {line.plain[:9]: str(line.style) for line in frame([SNAPSHOT], 100, None)}
    assert styles["  step 20"] == "bold yellow"
    assert styles["  step 30"] == "dim"


@pytest.mark.parametrize("width", [20, 60, 61, 80, 133, 200])
@pytest.mark.parametrize("name", ["base", CHINESE, "x" * 300, CHINESE * 20])
def test_no_line_is_wider_than_the_terminal(width, name):
    stale = {**SNAPSHOT, "run": name, "state": "stale", "age_seconds": 1e6}
    for line in lines([{**SNAPSHOT, "run": name}, stale, {**EMPTY, "run": name}], width):
        assert cell_len(line) <= width


@pytest.mark.parametrize("width", [60, 61, 100])
def test_titles_are_equally_wide_whatever_the_script(width):
    names = ["a", "base", CHINESE, CHINESE * 9, "é" * 5, "日本語 mixed 名前"]
    titles = [lines([{**SNAPSHOT, "run": name}], width)[0] for name in names]
    assert {cell_len(title) for title in titles} == {width}
    assert len({cell_len(title[: title.index("running")]) for title in titles}) == 1


def test_nothing_is_torn_apart_in_a_narrow_terminal():
    shown = lines([SNAPSHOT], 60)
    text = "\n".join(shown)
    for value in (
        "left 1 d 1:01:01",
        "validation accuracy 0.200",
        "memory 1.5 GB peak 2.5 GB",
        "of peak 55%",
    ):
        assert value in text


def test_a_run_that_has_not_begun():
    assert lines([EMPTY], 60)[1:] == ["  step 0"]
    assert "waiting" in lines([EMPTY], 60)[0]
    assert "no such folder yet" in lines([EMPTY], 80)[0]
    assert lines([]) == ["no runs yet"]


def test_a_silent_run_says_for_how_long():
    assert "stale, silent for 0:10:00" in lines([{**SNAPSHOT, "state": "stale", "age_seconds": 600.0}])[0]


def test_a_finished_run_has_nothing_left():
    assert "left" not in "".join(lines([{**SNAPSHOT, "state": "finished"}], 200)[:2])


def test_more_runs_than_lines():
    many = [{**SNAPSHOT, "run": f"run{number}"} for number in range(5)]
    block = len(lines(many[:1]))
    shown = lines(many, 100, 2 * block + 1)
    assert len(shown) == 2 * block + 1
    assert shown[-1] == "and 3 more"
    assert lines(many, 100, 5 * block) == lines(many, 100)
    assert len(lines(many, 100, 3)) == 3


def test_plain_characters():
    text = "\n".join(lines([{**SNAPSHOT, "run": "base"}], 80, ascii_only=True))
    assert text.isascii()
    assert "##" in text


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([1.0], 10, "▁"),
        ([2.0, 2.0], 10, "▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 10, "█▁"),
        ([0, 2, 6, 8], 2, "▁█"),
    ],
)
def test_a_curve_in_a_line(values, width, expected):
    assert sparkline(values, width) == expected


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00:00"), (3599.9, "0:59:59"), (2e5, "2 d 7:33:20")])
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def write_run(folder, *, finished=True, steps=10):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"steps: {steps}\n")
    records = [
        {
            "kind": "train",
            "step": step,
            "loss": 3.0 - step / 10,
            "lr": 1e-3,
            "step_seconds": 0.1,
            "seconds": step / 10,
        }
        for step in range(2, steps + 1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if finished:
        (folder / "summary.json").write_text("{}")
    return folder


@pytest.fixture
def looks(monkeypatch):
    """Time passes at once; a test says what happens in it."""
    happenings = []

    def sleep(seconds):
        happenings.append(seconds)
        assert len(happenings) < 20
        for act in looks.acts[:1]:
            looks.acts.pop(0)
            act()

    looks = type("Looks", (), {"acts": [], "slept": happenings})()
    monkeypatch.setattr(time, "sleep", sleep)
    return looks


def interrupt():
    raise KeyboardInterrupt


class TestCommand:
    def test_one_picture(self, command, tmp_path):
        write_run(tmp_path / "runs" / CHINESE, finished=False)
        result = command("monitor", "runs", "--once")
        assert result.code == 0
        assert CHINESE in result.out
        assert "step 10/10" in result.out
        assert "loss 2.0000" in result.out
        assert "\x1b" not in result.out

    def test_one_object_a_run(self, command, tmp_path):
        write_run(tmp_path / "runs/a")
        write_run(tmp_path / "runs/b", finished=False)
        result = command("monitor", "runs/a", "runs/b", "--once", "--json")
        found = [json.loads(line) for line in result.out.splitlines()]
        assert [(run["run"], run["state"]) for run in found] == [("b", "running"), ("a", "finished")]
        assert "losses" not in found[0]

    def test_it_ends_when_all_have_finished(self, command, tmp_path, looks):
        folder = write_run(tmp_path / "runs/a", finished=False)
        looks.acts = [lambda: None, lambda: (folder / "summary.json").write_text("{}")]
        result = command("monitor", "runs/a", "--interval", "0.5")
        assert result.code == 0
        assert looks.slept == [0.5, 0.5]
        assert result.out.count("running") == 2
        assert result.out.count("finished") == 1

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_ctrl_c_is_no_error(self, command, tmp_path, looks, options):
        write_run(tmp_path / "runs/a", finished=False)
        looks.acts = [interrupt]
        result = command("monitor", "runs/a", *options)
        assert (result.code, result.err) == (0, "")

    def test_a_run_that_is_not_there_yet(self, command, tmp_path, looks):
        looks.acts = [lambda: write_run(tmp_path / "runs/a")]
        result = command("monitor", "runs/a")
        assert result.out.index("waiting") < result.out.index("finished")

    def test_what_is_no_run(self, command, data_folder):
        result = command("monitor", data_folder, "--once")
        assert result.code == 2
        assert "holds prepared data, not a run" in result.err

    def test_a_live_view_leaves_its_last_picture(self, monkeypatch, tmp_path, looks):
        folder = write_run(tmp_path / "runs/a", finished=False)
        looks.acts = [lambda: None, lambda: (folder / "summary.json").write_text("{}")]

        class Terminal(io.StringIO):
            encoding = "utf-8"

            def isatty(self):
                return True

        screen = Terminal()
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setitem(os.environ, "TERM", "xterm-256color")
        monkeypatch.setitem(os.environ, "COLUMNS", "80")
        command_module.monitor([folder])
        text = screen.getvalue()
        assert "\x1b[" in text
        assert "finished" in text.rsplit("step 10/10", 1)[0]
        assert len(looks.slept) == 2
