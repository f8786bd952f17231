"""Prepare runs that are killed or run out of room; what they leave is gone on with, to the same bytes."""

import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import maskwright
import tiny_world
from maskwright.core.errors import StorageError
from maskwright.tokens.shards import verify_folder

pytestmark = pytest.mark.fault

DEADLINE_SECONDS = 120
# The command itself; all work goes to the workers, however little it is.
PROGRAM = """
import sys
from maskwright.corpus.runners import stage
stage._SMALL_BYTES = 0
sys.argv = ["maskwright", "prepare", *sys.argv[1:]]
from maskwright.cli.main import main
main()
"""


def new_files(folder, before):
    """How many whole files a run has written since `before`, which is taken by `files_by_number`."""
    return sum(before.get(path) != number for path, number in files_by_number(folder).items())


def files_by_number(folder):
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - it has to be quick
            try:
                if ".partial-" not in name and name != ".lock":
                    found[path] = os.stat(path).st_ino  # noqa: PTH116
            except FileNotFoundError:
                pass
    return found


def start(recipe, folder, *options, **streams):
    command = [sys.executable, "-c", PROGRAM, str(recipe), "-o", str(folder), *options]
    return subprocess.Popen(command, **streams)


def start_and_kill(recipe, folder, workers, new):
    """Start a run and kill it as soon as it has written so many new files. Returns its exit status."""
    before = files_by_number(folder)
    options = ["--workers", str(workers), *(["--resume"] if before else [])]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start(recipe, folder, *options, **quiet)
    give_up = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and new_files(folder, before) < new:
        assert time.monotonic() < give_up, "the run hangs"
    process.kill()
    return process.wait()


def run_to_the_end(recipe, folder, workers):
    process = start(recipe, folder, "--resume", "--workers", str(workers), stderr=subprocess.PIPE, text=True)
    err = process.communicate(timeout=DEADLINE_SECONDS)[1]
    assert process.returncode == 0, err
    assert "Traceback" not in err


def kill_and_compare(recipe, plain_files, tmp_path, *, workers, kills, seed, finishing=0.5):
    """Kill runs at random points of their progress, some of them several times, and finish them."""
    chance, folder = random.Random(seed), tmp_path / "out"
    total = 120  # about as many files as a run writes, the passing ones included
    while kills:
        left = max(1, total - len(files_by_number(folder)))
        status = start_and_kill(recipe, folder, workers, chance.randint(1, left))
        kills -= status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL)
        if status == 0 or not kills or chance.random() < finishing:
            run_to_the_end(recipe, folder, workers)
            assert tiny_world.prepared_files(folder) == plain_files
            shutil.rmtree(folder)


def test_killed_at_random_points_and_run_again_gives_the_same_bytes(
    values, plain_files, write_recipe, tmp_path
):
    kill_and_compare(write_recipe(values), plain_files, tmp_path, workers=1, kills=4, seed=1, finishing=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_fifty_random_points(values, plain_files, write_recipe, tmp_path, workers, seed):
    kill_and_compare(write_recipe(values), plain_files, tmp_path, workers=workers, kills=10, seed=100 + seed)


class Disk:
    """Storage that is full from the n-th operation on: opening, writing, flushing, renaming."""

    def __init__(self, monkeypatch, room):
        self.room, self.used = room, 0
        honest_open, honest_fsync, honest_replace = Path.open, os.fsync, Path.replace
        disk = self

        class Raw(io.FileIO):
            def write(self, data):
                disk.use()
                return super().write(data)

        def open_path(path, mode="r", *arguments, **options):
            if mode != "xb":
                return honest_open(path, mode, *arguments, **options)
            disk.use()
            return io.BufferedWriter(Raw(path, mode))

        def fsync(handle):
            disk.use()
            return honest_fsync(handle)

        def replace(path, target):
            disk.use()
            return honest_replace(path, target)

        monkeypatch.setattr(Path, "open", open_path)
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(os, "fsync", fsync)

    def use(self):
        self.used += 1
        if self.used > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "in.jsonl"
    tiny_world.write_corpus(path, documents=40)
    return {**tiny_world.prepare_values(path), "tokens_per_shard": 100_000}


@pytest.fixture(scope="module")
def operations(small, tmp_path_factory):
    """How often a run uses the disk, and what it leaves."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, 1 << 30)
        maskwright.prepare(small, output=folder, workers=1)
    assert disk.used > 80
    return disk.used, tiny_world.prepared_files(folder)


class TestFullDisk:
    """Full at any write: a clear refusal, nothing half-written, and a way on."""

    def fill_at(self, small, expected, tmp_path, room):
        folder = tmp_path / f"out-{room}"
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, room)
            with pytest.raises(StorageError, match="No space left on device; free some space or choose"):
                maskwright.prepare(small, output=folder, workers=1)
        assert not list(folder.rglob("*.partial-*"))
        if (folder / "manifest.json").exists():
            verify_folder(folder)
        maskwright.prepare(small, output=folder, workers=1, resume=True)
        assert tiny_world.prepared_files(folder) == expected, room
        assert (folder / "data_report.html").exists()
        shutil.rmtree(folder)

    def test_at_some_operations(self, small, operations, tmp_path):
        total, expected = operations
        for room in [*range(0, total, 11), total - 1]:
            self.fill_at(small, expected, tmp_path, room)

    @pytest.mark.slow
    def test_at_every_operation(self, small, operations, tmp_path):
        total, expected = operations
        for room in range(total):
            self.fill_at(small, expected, tmp_path, room)


# Read by every Python process that finds it: the first to finish a task of encoding is killed by its id.
KILL_ONE = """
import os, signal, sys
def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("encode/task-00001.json"):
        try:
            handle = os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(handle, str(os.getpid()).encode())
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_a_worker_that_is_killed_changes_nothing(values, plain_files, tmp_path, monkeypatch, runner):
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILL_ONE)
    monkeypatch.setattr("maskwright.corpus.runners.stage._SMALL_BYTES", 0)
    paths = [str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "KILLED": str(tmp_path / "killed")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if runner == "ray":
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": variables})
    try:
        maskwright.prepare(values, output=tmp_path / "out", workers=2, runner=runner)
    finally:
        if runner == "ray":
            ray.shutdown()
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    assert tiny_world.prepared_files(tmp_path / "out") == plain_files
