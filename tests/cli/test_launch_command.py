"""`maskwright launch`: what it refuses, what it would run, and whole runs of two processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml

import tiny_world
from maskwright.core.recipes import load_recipe
from maskwright.training.pretrain_config import PretrainConfig

PATIENCE = 200


@pytest.fixture
def recipe(data_folder, tmp_path):
    """The tiny recipe, in a file with an awkward name."""
    path = tmp_path / "my 配方.yaml"
    path.write_text(yaml.safe_dump({"pretrain": {**tiny_world.PRETRAIN, "data": str(data_folder)}}), "utf-8")
    return path


class TestRefused:
    """Before anything starts."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "'' cannot be launched, expected: maskwright launch pretrain RECIPE"),
            (("finetune", "laptop"), "'finetune' cannot be launched"),
            (("pretrain", "labtop"), 'unknown recipe "labtop"; did you mean "laptop"?'),
            (("pretrain", "laptop", "stebs=3"), 'unknown key "stebs"; did you mean "steps"?'),
            (("pretrain", "laptop", "--on", "mars"), "--on is 'mars', expected one of local, slurm"),
            (("pretrain", "laptop", "--time", "3"), "--time is for --on slurm, but --on is local"),
            (("pretrain", "laptop", "--on", "slurm", "--image", "x"), "--image is for --on kubernetes"),
            (("pretrain", "laptop", "--on", "slurm", "--node-rank", "0"), "--node-rank is for --on local"),
            (("pretrain", "laptop", "--script", "x"), "--script is for --on slurm or kubernetes"),
            (("pretrain", "laptop", "--cpus", "4"), "--cpus is for --on slurm or kubernetes"),
            (("pretrain", "laptop", "--on", "slurm", "--overwrite"), "--overwrite does not go into a script"),
            (("pretrain", "laptop", "--gpus", "2", "--processes", "3"), "each process has one GPU"),
            (("pretrain", "laptop", "--gpus", "2"), "--gpus is 2, but device is cpu"),
            *(
                (
                    ("pretrain", "laptop", "--nodes", text),
                    f"--nodes is {text!r}, expected a number of machines",
                )
                for text in ("0", "two", "3:2", "0:2", "2:", ":2", "1:2:3", "-1", "")
            ),
            (
                ("pretrain", "laptop", "--on", "slurm", "--nodes", "2:4"),
                "--nodes is '2:4', but --on is slurm, which starts a fixed number of machines",
            ),
            (
                (
                    "pretrain",
                    "laptop",
                    "parallel={engine: fsdp2, tensor: 4}",
                    "--nodes",
                    "2:3",
                    "--processes=2",
                ),
                '"parallel.tensor" is 4, but 6 processes are no multiple of it',
            ),
            (
                ("pretrain", "laptop", "parallel={engine: fsdp2, replicas: 2}", "--nodes", "2:3"),
                '"parallel.replicas" is 2, but 3 processes see other samples',
            ),
            (("pretrain", "laptop", "--nodes", "1:2"), "--nodes is 2, so each machine needs --node-rank"),
            (("pretrain", "laptop", "--nodes", "2"), "--nodes is 2, so each machine needs --node-rank"),
            (
                ("pretrain", "laptop", "--nodes", "2", "--node-rank", "2", "--address", "a:1"),
                "--node-rank is 2, expected 0 to 1 (--nodes is 2)",
            ),
            (
                ("pretrain", "laptop", "--nodes", "2", "--node-rank", "1", "--address", "a"),
                "--address is 'a', expected HOST:PORT",
            ),
            (
                ("pretrain", "laptop", "parallel={engine: fsdp2, tensor: 2}", "--processes", "3"),
                '"parallel.tensor" is 2, but 3 processes are no multiple of it',
            ),
            (("pretrain", "laptop", "--on", "slurm", "--sbatch", "qoss=x"), '"qoss" is no option of sbatch'),
            (("pretrain", "laptop", "--on", "kubernetes"), "--image is missing"),
            (("pretrain", "laptop", "--on", "kubernetes", "--image", "i"), "--claim is missing"),
            (
                ("pretrain", "laptop", "--on", "kubernetes", "--image", "i", "--kind", "pod"),
                "--kind is 'pod', expected one of jobset, pytorchjob",
            ),
            (
                ("pretrain", "laptop", "--on", "kubernetes", "--image", "i", "--claim", "work"),
                "--claim is 'work', expected CLAIM=/FOLDER",
            ),
            (
                (
                    *("pretrain", "laptop", "--on", "kubernetes", "--image", "i"),
                    *("--claim", "a=/work", "--claim", "b=/work"),
                ),
                "--claim names /work twice, for a and b; leave one out",
            ),
        ],
    )
    def test_refused(self, command, tmp_path, arguments, message):
        result = command("launch", *arguments)
        assert result.code == 2
        assert message in result.err
        assert not list(tmp_path.iterdir())

    def test_more_gpus_than_there_are(self, command, monkeypatch):
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        result = command("launch", "pretrain", "laptop", "device=auto", "--gpus", "3")
        assert result.code == 2
        assert "3 GPUs are needed, but this machine has 2; lower --gpus or --processes" in result.err

    def test_occupied_folder(self, command, recipe, tmp_path):
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "mine.txt").write_text("x")
        result = command("launch", "pretrain", recipe, "-o", "r")
        assert result.code == 2
        assert "r: is not empty; add --resume" in result.err

    def test_used_address(self, command, recipe, tmp_path):
        """Workers go on with what they find, so the launcher looks before."""
        place = tmp_path / "copies" / "step-00000009"
        place.mkdir(parents=True)
        (place / "manifest.json").write_text("of a version that is not known")
        result = command("launch", "pretrain", recipe, "checkpoint.upload=copies", "-o", "r")
        assert result.code == 2
        assert "copies: holds checkpoints, the newest of step 9, but this run is a new one" in result.err
        assert not (tmp_path / "r").exists()


class TestDryRun:
    """What would run, and what would be written."""

    def test_local(self, command, recipe):
        arguments = ("launch", "pretrain", recipe, "data=a b", "--processes", "2", "--dry-run", "--json")
        result = command(*arguments)
        assert result.code == 0
        assert result.json["processes"] == 2
        words = shlex.split(result.json["command"])
        assert words == [
            *(sys.executable, "-m", "maskwright", "pretrain", str(recipe), "data=a b"),
            *("--output=runs/my 配方", "--resume", "--json"),
        ]
        assert "sequence_length: 32" in result.err

    def test_gpus_by_default(self, command, monkeypatch):
        import torch

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        result = command("launch", "pretrain", "laptop", "device=auto", "--dry-run", "--json")
        assert (result.json["processes"], result.json["gpus"]) == (4, 4)

    def test_slurm(self, command, recipe, tmp_path):
        arguments = (
            "launch",
            "pretrain",
            recipe,
            "device=auto",
            "--on",
            "slurm",
            "--nodes",
            "2",
            "--gpus",
            "4",
        )
        shown = command(*arguments, "--dry-run")
        assert not (tmp_path / "my 配方.sbatch").exists()
        result = command(*arguments, "--json")
        assert result.json == {"script": "my 配方.sbatch", "next": "sbatch 'my 配方.sbatch'"}
        text = (tmp_path / "my 配方.sbatch").read_text("utf-8")
        assert text == shown.out
        assert "#SBATCH --gpus-per-node=4\n" in text
        assert shlex.quote(str(recipe)) in text

    def test_kubernetes(self, command, recipe, tmp_path):
        """The manifest holds the whole recipe."""
        result = command(
            *("launch", "pretrain", recipe, "optimizer.lr=2e-3", "data='a: b # c'", "--on", "kubernetes"),
            *("--image", "img:1", "--claim", "work=/work", "--script", "m.yaml", "-o", "runs/r"),
        )
        assert result.code == 0
        assert "kubectl apply -f m.yaml" in result.out
        configs, job = yaml.safe_load_all((tmp_path / "m.yaml").read_text("utf-8"))
        (tmp_path / "inside.yaml").write_text(configs["data"]["recipe.yaml"], "utf-8")
        again = load_recipe(PretrainConfig, "pretrain", str(tmp_path / "inside.yaml"), [])
        overrides = ["optimizer.lr=2e-3", "data='a: b # c'"]
        assert again == load_recipe(PretrainConfig, "pretrain", str(recipe), overrides)
        assert job["kind"] == "JobSet"


@pytest.fixture
def start(tmp_path):
    """Start launches; those that a failed test leaves behind are stopped."""
    started = []

    def run(*arguments):
        command = [sys.executable, "-m", "maskwright", "launch", "pretrain", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, encoding="utf-8", env=os.environ, **pipes))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    return process.returncode, out, err


def steps(folder):
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [line["step"] for line in lines if line["kind"] == "train"]


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def worker_of(launcher, rank):
    """Number of the process that is a rank of a launcher."""
    with open(f"/proc/{launcher.pid}/task/{launcher.pid}/children") as file:
        for child in file.read().split():
            with open(f"/proc/{child}/environ", "rb") as variables:
                if b"RANK=%d" % rank in variables.read().split(b"\0"):
                    return int(child)
    raise AssertionError(f"rank {rank} is not there")


LONG = ("steps=4000", "checkpoint.every_steps=20", "evaluation.every_steps=4000", "log_every_steps=1")


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc")
def test_two_processes(start, recipe, tmp_path):
    """A run; a wrong one; one that is killed, goes on, is stopped, and is gone on with."""
    well = start(recipe, "-o", "well", "--processes", 2, "--json")
    code, out, err = finish(well)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["steps"] == 24
    assert (tmp_path / "well" / "report.html").exists()
    [logs] = (tmp_path / "well" / "logs").iterdir()
    assert sorted(path.name for path in (logs / "attempt-0").iterdir()) == [
        *("rank-0.err", "rank-0.out", "rank-1.err", "rank-1.out")
    ]

    wrong = start(recipe, "data=no/such/folder", "-o", "wrong", "--processes", 2)
    long = start(recipe, *LONG, "-o", "long", "--processes", 2, "--restarts", 1)
    code, out, err = finish(wrong)
    assert code == 2
    errors = [line for line in err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "no/such/folder" in errors[0]
    assert not list((tmp_path / "wrong" / "logs").glob("*/attempt-1"))

    run = tmp_path / "long"
    wait_for(lambda: max(steps(run), default=0) > 50, long)
    os.kill(worker_of(long, 1), signal.SIGKILL)
    before = max(steps(run))
    wait_for(lambda: max(steps(run)) > before + 20 and len(list(run.glob("logs/*/attempt-1/*"))) == 4, long)
    long.send_signal(signal.SIGTERM)
    code, out, err = finish(long)
    assert code == 3
    assert "rank 1 was killed by SIGKILL (perhaps for its memory); all ranks start again" in err
    assert sum("interrupted: " in line for line in err.splitlines()) == 1
    reached = max(steps(run))

    code, out, err = finish(start(recipe, *LONG, "-o", "long", "--processes", 2))
    assert code == 2
    assert "is not empty; add --resume" in err
    again = start(recipe, *LONG, "-o", "long", "--processes", 2, "--resume")
    wait_for(lambda: max(steps(run)) > reached, again)
    again.send_signal(signal.SIGTERM)
    code, out, err = finish(again)
    assert code == 3
    numbers = steps(run)
    assert max(numbers) > reached
    assert set(range(1, max(numbers) + 1)) <= set(numbers)
