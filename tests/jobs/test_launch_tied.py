"""Workers end with their launcher, however it ends: it is killed, or its terminal is closed."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading

import pytest

from maskwright.jobs.launching import tied
from maskwright.jobs.launching.logs import Follower

WORKER = """
import os, signal, sys, threading
from pathlib import Path
folder, rank, asked = Path(sys.argv[1]), os.environ["RANK"], threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
print(f"rank {rank} has arguments {sys.argv[1:]} as {__name__}", flush=True)
with (folder / "started").open("w") as told:  # a pipe: the test waits at its other end
    told.write(f"{rank} {os.getpid()}\\n")
while not asked.wait(0.05):
    pass
(folder / f"saved-{rank}").touch()
sys.exit(3)
"""
LAUNCHER = """
import fcntl, os, sys, termios
from pathlib import Path
from maskwright.jobs.launching import LaunchPlan, Machines
from maskwright.jobs.launching.local import run_workers
from maskwright.jobs.launching.tied import tied_command
folder = sys.argv[1]
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as sshd does for its sessions
plan = LaunchPlan((), Path(folder) / "run", "test", Machines(1, 2), 0)
ending = run_workers(tied_command(["worker", folder]), plan)
(Path(folder) / "ending").write_text(f"{ending.verdict} {ending.asked}")
"""
PATIENCE_SECONDS = 100


def launch(folder, **streams):
    """Start a launcher; returns it and its workers, as descriptors that become readable when they end."""
    folder.mkdir()
    (folder / "worker.py").write_text(WORKER)
    os.mkfifo(folder / "started")
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        start_new_session=True,
        **streams,
    )
    pids = set()
    while len(pids) < 2:
        with (folder / "started").open() as told:
            pids |= {int(line.split()[1]) for line in told}
    return process, [os.pidfd_open(pid) for pid in pids]


def wait_for_ends(descriptors):
    for descriptor in descriptors:
        found, _, _ = select.select([descriptor], [], [], PATIENCE_SECONDS)
        if not found:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
        assert found, "a worker outlived its launcher"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="waits by pidfd")
@pytest.mark.distributed
@pytest.mark.fault
@pytest.mark.slow
def test_workers_save_and_end_when_their_launcher_or_its_terminal_is_gone(tmp_path):
    killed, workers = launch(tmp_path / "killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed.kill()
    assert killed.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    wait_for_ends(workers)
    [logs] = (tmp_path / "killed" / "run" / "logs").iterdir()
    for rank in range(2):
        assert (tmp_path / "killed" / f"saved-{rank}").exists()
        said = (logs / "attempt-0" / f"rank-{rank}.err").read_text()
        assert said == f"the launcher (process {killed.pid}) is gone; this worker saves and stops\n"
        out = (logs / "attempt-0" / f"rank-{rank}.out").read_text()
        assert out == f"rank {rank} has arguments {[str(tmp_path / 'killed')]} as __main__\n"

    terminal, end = pty.openpty()
    closed, workers = launch(tmp_path / "closed", stdin=end, stdout=end, stderr=end)
    os.close(end)
    os.close(terminal)  # what sshd does when the connection is gone
    wait_for_ends(workers)
    assert closed.wait(PATIENCE_SECONDS) == 0
    assert (tmp_path / "closed" / "ending").read_text() == "interrupted SIGHUP"
    assert (tmp_path / "closed" / "saved-0").exists()
    assert (tmp_path / "closed" / "saved-1").exists()


def test_a_worker_without_a_parent_is_asked_and_then_killed(capfd):
    parents, sent, waited = [7, 7, 1], [], []
    tie = tied.Tie(7, lambda: parents.pop(0), sent.append, waited.append)
    tie.watch()
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    assert waited == [1.0, 1.0, 120.0]
    assert capfd.readouterr().err == "the launcher (process 7) is gone; this worker saves and stops\n"


def test_the_module_runs_as_if_it_were_started_alone(monkeypatch):
    started, run = [], []
    monkeypatch.setattr(tied.Tie, "start", lambda tie: started.append(tie.launcher))
    monkeypatch.setattr(tied.runpy, "run_module", lambda name, **options: run.append((name, sys.argv)))
    command = tied.tied_command(["maskwright", "pretrain"])
    assert command[:3] == [sys.executable, "-m", "maskwright.jobs.launching.tied"]
    monkeypatch.setattr(sys, "argv", command[2:])
    tied.main()
    assert started == [os.getpid()]
    assert run == [("maskwright", ["maskwright", "pretrain"])]


def test_a_stream_that_is_gone_ends_only_the_showing(tmp_path):
    path, written = tmp_path / "out", threading.Event()
    path.write_text("hello")

    class Gone:
        def write(self, text):
            written.set()
            raise BrokenPipeError

    follower = Follower(path, Gone())
    assert written.wait(60)
    follower.close()
