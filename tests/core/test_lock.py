"""Locks of folders: one holder, told apart from the dead, gone when done."""

import os
import re
import signal
import subprocess
import sys

import pytest

from maskwright.core.errors import OutputExistsError
from maskwright.core.lock import lock_folder

HOLD = (
    "import sys; from pathlib import Path; from maskwright.core.lock import lock_folder\n"
    "with lock_folder(Path(sys.argv[1]), shared=len(sys.argv) > 2):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """Start processes that hold the folder."""
    started = []

    def start(*options):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "out"), *options]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_refused_by_process_number(tmp_path, holder):
    process = holder()
    wanted = re.escape(f"another maskwright job is writing here (process {process.pid})")
    with pytest.raises(OutputExistsError, match=wanted), lock_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / ".lock").exists()


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    process = holder()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with lock_folder(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").read_text() == f"{os.getpid()}\n"


def test_nothing_is_left_behind(tmp_path):
    for _ in range(2):
        with lock_folder(tmp_path / "out"):
            pass
    assert list((tmp_path / "out").iterdir()) == []


def test_sharers_keep_out_the_one_who_wants_it_alone(tmp_path, holder):
    holder("shared")
    with lock_folder(tmp_path / "out", shared=True):
        pass
    with pytest.raises(OutputExistsError, match="another maskwright job"), lock_folder(tmp_path / "out"):
        pass


def test_an_error_inside_passes_and_frees(tmp_path):
    with pytest.raises(KeyError), lock_folder(tmp_path / "out"):
        raise KeyError
    with lock_folder(tmp_path / "out"):
        pass


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "out").write_text("mine")
    wanted = "out: is a file, expected a folder"
    with pytest.raises(OutputExistsError, match=wanted), lock_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"
