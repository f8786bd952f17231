"""Real processes that are killed, stopped, or run out of room; what they leave is gone on with."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import tiny_world

pytestmark = pytest.mark.fault

PROGRAM = Path(sys.executable).with_name("maskwright")
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def recipe(data_folder, pretrained, labelled, corpus_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    sections = {
        "prepare": tiny_world.prepare_values(corpus_file),
        "pretrain": {**tiny_world.PRETRAIN, "data": str(data_folder), "log_every_steps": 1},
        "finetune": {**tiny_world.FINETUNE, "model": str(pretrained), "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def start(*arguments, **options):
    """A process of its own, whose output goes into pipes."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, err


def wait_for_step(process, folder, step):
    """Wait until the run has recorded a step; it must still be alive then or have gone further."""
    path = folder / "metrics.jsonl"
    give_up = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        if path.exists() and f'"kind": "train", "step": {step},' in path.read_text():
            return
    assert process.poll() is None, process.communicate()[1]


def weights(folder):
    return (folder / "export" / "model.safetensors").read_bytes()


def whole_checkpoints(folder):
    return sorted(path.parent.name for path in (folder / "checkpoints").glob("step-*/manifest.json"))


def assert_valid_lines(path):
    """Every line is JSON, but for those that a kill may have torn."""
    lines = path.read_text().splitlines()
    torn = 0
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            torn += 1
    assert torn <= 2
    return lines


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 7))])
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(recipe, pretrained, tmp_path, seed):
    """`kill -9` twice in one run, each at a step that nobody planned for."""
    folder, chance = tmp_path / "run", random.Random(seed)
    first = chance.randrange(1, 12)
    for step, flags in ((first, ()), (first + chance.randrange(9, 11), ("--resume",))):
        process = start("pretrain", recipe, "-o", folder, *flags)
        wait_for_step(process, folder, step)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "summary.json").exists()
    code, out, err = finish("pretrain", recipe, "-o", folder, "--resume", "--json")
    assert code == 0, err
    assert weights(folder) == weights(pretrained)
    assert json.loads(out.splitlines()[-1])["steps"] == 24
    assert "resumed from the checkpoint of step" in err
    assert_valid_lines(folder / "metrics.jsonl")
    assert not list((folder / "checkpoints").glob(".partial-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_by_a_signal_it_saves_says_how_to_go_on_and_does(recipe, pretrained, tmp_path, number):
    folder = tmp_path / "run"
    process = start("pretrain", recipe, "-o", folder, "--json")
    wait_for_step(process, folder, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    said = json.loads(out.splitlines()[-1])
    assert said["exit_code"] == 3
    assert f"stopped by {number.name} at step " in said["interrupted"]
    assert "run the same command with --resume to go on" in err
    assert whole_checkpoints(folder)
    assert not (folder / "export").exists()
    code, _, err = finish("pretrain", recipe, "-o", folder, "--resume")
    assert code == 0, err
    assert weights(folder) == weights(pretrained)


def test_preparing_is_stopped_by_a_signal_and_gone_on_with(recipe, data_folder, tmp_path):
    """A start that stops itself in the middle of encoding, by the signal of Ctrl-C."""
    code = """
import os, signal, sys
from maskwright.jobs.preparation import encode
# A suite that runs in the background of a shell inherits that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
honest = encode.write_array
def write_array(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return honest(*arguments)
encode.write_array = write_array
sys.argv = ["maskwright", "prepare", *sys.argv[1:]]
from maskwright.cli.main import main
main()
"""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", code, str(recipe), "-o", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert result.returncode == 3, result.stderr
    assert (
        "interrupted: stopped; what was finished is kept, run the same command with --resume" in result.stderr
    )
    assert "Traceback" not in result.stderr
    assert not (folder / "manifest.json").exists()
    code, _, err = finish("prepare", recipe, "-o", folder, "--resume")
    assert code == 0, err
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)


# The kernel refuses to let a file grow beyond a limit: the nearest thing to a full disk that a test
# may make. Writing fails in the middle of a file, as it would there.
LIMITED = """
import resource, sys
limit = int(sys.argv[1])
sys.argv = ["maskwright", *sys.argv[2:]]
from maskwright.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main()
"""


def finish_limited(limit, *arguments):
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)


def test_no_room_for_checkpoints(recipe, pretrained, tmp_path):
    """In the middle of a run that is a warning, at its end an error; with room the run ends as ever."""
    folder = tmp_path / "run"
    result = finish_limited(100_000, "pretrain", recipe, "-o", folder)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr.splitlines()[-1]
    assert "step-00000024" in result.stderr.splitlines()[-1]
    records = [json.loads(line) for line in assert_valid_lines(folder / "metrics.jsonl")]
    first, *warnings = [record for record in records if record["kind"] == "event"]
    assert first["message"].startswith("samples: ")
    # Saving goes on beside training, so it is told a little later.
    for step, warning in zip((8, 16), warnings, strict=True):
        assert step <= warning["step"] <= step + 8
        assert warning["message"].startswith("WARNING: no checkpoint was saved: ")
        assert f"step-{step:08d}" in warning["message"]
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, 25))
    assert not list((folder / "checkpoints").iterdir())
    assert not (folder / "export").exists()
    code, _, err = finish("pretrain", recipe, "-o", folder, "--resume")
    assert code == 0, err
    assert weights(folder) == weights(pretrained)


@pytest.mark.parametrize("limit", [2_000, 8_000])
def test_no_room_for_data(recipe, data_folder, tmp_path, limit):
    folder = tmp_path / "data"
    result = finish_limited(limit, "prepare", recipe, "-o", folder)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "the file system does not hold files of this size" in result.stderr
    assert not (folder / "manifest.json").exists()
    assert not list(folder.rglob("*.partial-*"))
    code, _, err = finish("prepare", recipe, "-o", folder, "--resume")
    assert code == 0, err
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)


def test_no_room_for_the_report_of_data(recipe, data_folder, tmp_path):
    """The data are whole by then; the same command makes up for the report."""
    folder = tmp_path / "data"
    limit = (data_folder / "data_report.html").stat().st_size - 100
    result = finish_limited(limit, "prepare", recipe, "-o", folder)
    assert result.returncode == 2, result.stderr
    assert "data_report.html: File too large" in result.stderr
    manifest = (folder / "manifest.json").read_bytes()
    assert manifest == (data_folder / "manifest.json").read_bytes()
    code, _, err = finish("prepare", recipe, "-o", folder, "--resume")
    assert code == 0, err
    assert (folder / "data_report.html").exists()
    assert tiny_world.prepared_files(folder) == tiny_world.prepared_files(data_folder)


@pytest.mark.slow
def test_the_demo_stopped_by_ctrl_c_goes_on_without_a_flag(corpus_file, labelled, pretrained, tmp_path):
    path = tmp_path / "tiny.yaml"
    sections = {
        "prepare": tiny_world.prepare_values(corpus_file),
        "pretrain": {**tiny_world.PRETRAIN, "log_every_steps": 1},
        "finetune": {**tiny_world.FINETUNE, "data": dict(labelled)},
    }
    path.write_text(yaml.safe_dump(sections))
    process = start("demo", path, "-o", tmp_path / "out")
    wait_for_step(process, tmp_path / "out" / "pretrain", 6)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 3, err
    assert "run the same command" in err.splitlines()[-1]
    code, out, err = finish("demo", path, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    assert weights(tmp_path / "out" / "pretrain") == weights(pretrained)
    results = json.loads(out.splitlines()[-1])
    assert Path(results["report"]).is_file()
    assert Path(results["report"]).stat().st_size > 10_000
