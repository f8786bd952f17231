"""Launches on this machine, with workers that end in every way there is."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from maskwright.core.errors import ConfigError, MaskwrightError, OutOfReachError, OutputExistsError, UserError
from maskwright.jobs.launching import LaunchPlan, Machines, network
from maskwright.jobs.launching.network import interface_of, local_address, split_address, wait_for_listener

# What a worker does is said by the file `plan`: one line for each start, one word for each rank.
WORKER = """
import os, signal, sys, time
from pathlib import Path
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
attempt = len(list(folder.glob(f"started-{rank}-*")))
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
(folder / f"started-{rank}-{attempt}").write_text(
    os.environ["WORLD_SIZE"] + " " + os.environ["OMP_NUM_THREADS"] + " " + str(os.getpid())
)
word = (folder / "plan").read_text().splitlines()[attempt].split()[rank]
print(f"rank {rank} attempt {attempt} 你好", flush=True)
if word == "wait":
    stop, end = folder / ("stop-" + os.environ["WORLD_SIZE"]), time.monotonic() + 60
    while not asked and not stop.exists() and time.monotonic() < end:
        time.sleep(0.02)
    word = "3" if asked or stop.exists() else "1"
    stop.touch()  # where one is asked to stop, all save and leave
if word == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if word != "0":
    print(f"rank {rank}: error: this is {word}", file=sys.stderr, flush=True)
sys.exit(int(word))
"""
LAUNCHER = """
import sys
from pathlib import Path
from maskwright.core.errors import MaskwrightError
from maskwright.core.log import set_up_logging
from maskwright.jobs.launching import LaunchPlan, Machines
from maskwright.jobs.launching import local
from maskwright.jobs.launching.local import Meeting, run_workers
folder, restarts, nodes, node_rank, port, least = sys.argv[1], *map(int, sys.argv[2:7])
local._LAST_CALL_SECONDS = 1
set_up_logging()
plan = LaunchPlan((), Path(folder) / "run", "test", Machines(nodes, 2 // nodes, least=least), restarts)
command = [sys.executable, folder + "/worker.py", folder]
try:
    ending = run_workers(command, plan, Meeting(node_rank, "127.0.0.1", port))
    print(ending.verdict, dict(ending.codes), ending.restarts, ending.asked, ending.told)
    ending.check()
except MaskwrightError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
PATIENCE = 100


def start(folder, plan, *, restarts=0, nodes=1, node_rank=0, port=0, least=None):
    folder.mkdir(exist_ok=True)
    (folder / "plan").write_text(plan)
    (folder / "worker.py").write_text(WORKER)
    arguments = [str(folder), *map(str, (restarts, nodes, node_rank, port, least or nodes))]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def wait_for(paths):
    end = time.monotonic() + PATIENCE
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_all(folder, plans):
    """Launch at the same time, and wait for all."""
    running = {name: start(folder / name, plan, restarts=count) for name, (plan, count) in plans.items()}
    return {name: finish(process) for name, process in running.items()}


@pytest.mark.distributed
def test_well_and_refused(tmp_path):
    results = run_all(tmp_path, {"well": ("0 0", 0), "refused": ("0 2", 3)})

    code, out, err = results["well"]
    assert (code, err) == (0, "")
    assert out == "rank 0 attempt 0 你好\nfinished {} 0 None False\n"
    [folder] = (tmp_path / "well" / "run" / "logs").iterdir()
    assert (folder / "attempt-0" / "rank-1.out").read_text("utf-8") == "rank 1 attempt 0 你好\n"
    size, threads, _ = (tmp_path / "well" / "started-1-0").read_text().split()
    assert size == "2"
    assert int(threads) >= 1

    code, out, err = results["refused"]
    assert code == 2
    assert "refused {1: 2} 0 None False" in out
    assert err.count("\n") == 1
    assert err.startswith("error: rank 1 ended with exit code 2: this is 2; the logs of all ranks are in ")
    assert not (tmp_path / "refused" / "started-0-1").exists()


@pytest.mark.distributed
@pytest.mark.slow
def test_stopped_and_crashed(tmp_path):
    results = run_all(tmp_path, {"stopped": ("3 3", 3), "crashed": ("0 1\n0 1", 1)})

    code, out, err = results["stopped"]
    assert code == 3
    assert out.splitlines()[-1].endswith(" 0 None True")
    assert err.splitlines() == [
        "rank 0: error: this is 3",
        "error: stopped by a signal to its workers after saving",
    ]
    assert not (tmp_path / "stopped" / "started-0-1").exists()

    code, out, err = results["crashed"]
    assert code == 1
    assert "restart 1 of 1" in err
    assert "error: rank 1 ended with exit code 1, after 1 restart: this is 1; the logs" in err
    assert "Traceback" not in err
    assert (tmp_path / "crashed" / "started-0-1").exists()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.fault
def test_kills_and_signals(tmp_path):
    """A worker is killed and all start again; the launcher is asked to stop and its workers save."""
    killed = start(tmp_path / "killed", "wait kill\n0 0", restarts=2)
    asked = {
        name: start(tmp_path / name, "wait wait", restarts=2) for name in ("SIGTERM", "SIGINT", "SIGUSR1")
    }
    for name, process in asked.items():
        wait_for([tmp_path / name / f"started-{rank}-0" for rank in (0, 1)])
        process.send_signal(getattr(signal, name))

    code, out, err = finish(killed)
    assert code == 0
    assert "rank 1 was killed by SIGKILL (perhaps for its memory); all ranks start again" in err
    assert "restart 1 of 2" in err
    assert out.splitlines()[-2:] == ["rank 0 attempt 1 你好", "finished {} 1 None False"]
    for name, process in asked.items():
        code, out, err = finish(process)
        assert code == 3
        assert f" 0 {name} True" in out
        assert err.splitlines()[-1] == f"error: stopped by {name} after saving"
        assert not (tmp_path / name / "started-0-1").exists()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.fault
def test_two_machines(tmp_path):
    """Two launchers meet; one of them loses its worker, and both start again. One that refuses ends both."""
    port, folder = free_port(), tmp_path / "both"
    both = [
        start(folder, "wait kill\n0 0", restarts=2, nodes=2, node_rank=rank, port=port) for rank in (0, 1)
    ]
    lonely = start(tmp_path / "lonely", "0 0", nodes=2, node_rank=0, port=free_port())
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0]
    assert sum("rank 0 attempt 1 你好" in out for _, out, _ in results) == 1
    assert len(list((folder / "run" / "logs").iterdir())) == 2

    port = free_port()
    both = [start(tmp_path / "no", "1 2", restarts=2, nodes=2, node_rank=n, port=port) for n in (0, 1)]
    results = sorted(finish(process) for process in both)
    assert [code for code, _, _ in results] == [1, 2]
    assert f"the 2 machines of the run did not meet at 127.0.0.1:{port} (Rendezvous" in results[0][2]
    assert "error: rank 1 ended with exit code 2: this is 2;" in results[1][2]
    assert not any("Traceback" in err for _, _, err in results)

    wait_for_folder(tmp_path / "lonely" / "run" / "logs")
    lonely.send_signal(signal.SIGTERM)
    code, _, err = finish(lonely)
    assert code == 3
    assert "stopped by SIGTERM while waiting for the other machines" in err


@pytest.mark.distributed
@pytest.mark.fault
@pytest.mark.parametrize("leaver", [1, 0])
def test_machines_come_and_go(tmp_path, leaver):
    """One begins alone, another one comes, and one of them is asked to stop."""
    port, folder, plan = free_port(), tmp_path / "run", "wait wait\nwait 1\n0 1"
    both = [start(folder, plan, nodes=2, node_rank=0, port=port, least=1)]
    wait_for([folder / "started-0-0"])
    assert (folder / "started-0-0").read_text().startswith("1 ")
    both.append(start(folder, plan, nodes=2, node_rank=1, port=port, least=1))
    wait_for([folder / "started-0-1", folder / "started-1-0"])
    assert (folder / "started-0-1").read_text().startswith("2 ")
    both[leaver].send_signal(signal.SIGTERM)
    results = [finish(process) for process in both]
    assert not any("Traceback" in err for _, _, err in results)
    assert results[leaver][0] == 3
    assert results[leaver][2].splitlines()[-1] == "error: stopped by SIGTERM after saving"
    if leaver:  # the other one goes on alone, which is no restart after a crash
        assert "another machine was asked to stop" in results[0][2]
        assert results[0][0] == 0
        assert results[0][1].splitlines()[-1] == "finished {} 0 None False"
        assert (folder / "started-0-2").read_text().startswith("1 ")
    else:  # without the first machine there is no place to meet
        assert results[1][0] == 3
        assert "the meeting place is closed" in results[1][2]
        assert not (folder / "started-0-2").exists()


def wait_for_folder(folder):
    end = time.monotonic() + PATIENCE
    while not (folder.exists() and any(folder.iterdir())):
        assert time.monotonic() < end
        time.sleep(0.05)


class TestAddress:
    """Where machines meet."""

    def test_forms(self):
        assert split_address("node-1:29500") == ("node-1", 29500)
        assert split_address("[fe80::1]:29500") == ("fe80::1", 29500)

    @pytest.mark.parametrize("text", ["node-1", ":29500", "node-1:", "node-1:0", "node-1:65536", "node-1:x"])
    def test_wrong_forms(self, text):
        with pytest.raises(
            ConfigError, match=r"--address is .*, expected HOST:PORT with a port from 1 to 65535"
        ):
            split_address(text)

    def test_the_way_to_the_first(self):
        assert local_address("first", 29500, 0) == "first"
        assert local_address("127.0.0.1", 29500, 1) == "127.0.0.1"
        with pytest.raises(
            MaskwrightError, match=r"--address names no\.such\.host\.invalid, which cannot be reached"
        ) as caught:
            local_address("no.such.host.invalid", 29500, 1)
        assert caught.value.exit_code == 1  # a scheduler may try again

    def test_a_name_that_comes_to_exist(self, monkeypatch):
        """As that of a pod that starts after this one."""
        asked, know = [], socket.getaddrinfo

        def resolve(host, port, **options):
            asked.append(host)
            if len(asked) < 3:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return know("127.0.0.1", port, **options)

        monkeypatch.setattr(network.socket, "getaddrinfo", resolve)
        monkeypatch.setattr(network, "_AGAIN_SECONDS", 0.01)
        assert local_address("run-0.run", 29500, 1, patience=60.0) == "127.0.0.1"
        assert asked == ["run-0.run"] * 3

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
    def test_interface(self):
        assert interface_of("127.0.0.1") == "lo"
        assert interface_of("192.0.2.77") is None


@pytest.mark.distributed
@pytest.mark.fault
def test_a_refusal_of_the_first_machine_reaches_all(tmp_path):
    """Long before they would give up, and nothing is left in a folder that is somebody else's."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("x")
    command = [sys.executable, "-m", "maskwright", "launch", "pretrain", "laptop", "data=x", "-o", "r"]
    command += ["--nodes", "3", "--processes", "1", "--address", f"127.0.0.1:{free_port()}", "--node-rank"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    running = [subprocess.Popen([*command, str(rank)], cwd=tmp_path, **pipes) for rank in (2, 0, 1)]
    try:
        after, first, between = [finish(process) for process in running]
    finally:
        for process in running:
            process.kill()
    said = "r: is not empty; add --resume to go on, --overwrite to start again, or choose another folder"
    for code, out, err in (after, between):
        assert (code, out) == (2, "")
        assert err.startswith(f"error: machine 0 refuses the run: {said}")
        assert err.count("\n") == 1
    assert (first[0], first[1]) == (2, "")
    warning, error = first[2].splitlines()
    assert "the run is refused; other machines are told why for at most 30 s" in warning
    assert said in warning
    assert error.startswith(f"error: {said}")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["mine.txt"]


class TestRefusals:
    """What machine 0 says of a run."""

    @pytest.fixture
    def refusals(self, monkeypatch):
        from maskwright.jobs.launching import refusals

        monkeypatch.setattr(refusals, "_FAREWELL_SECONDS", 0.5)
        monkeypatch.setattr(logging.getLogger("maskwright"), "propagate", True)
        return refusals

    @pytest.fixture
    def store(self):
        from torch.distributed import HashStore

        store = HashStore()
        store.set_timeout(timedelta(seconds=0.2))
        return store

    def test_accepted(self, refusals, store):
        refusals.accept(store)
        refusals.require_accepted(store)
        refusals.require_accepted(store)  # also of one that comes later

    def test_no_answer(self, refusals, store):
        from torch.distributed.elastic.rendezvous import RendezvousConnectionError

        with pytest.raises(
            RendezvousConnectionError, match=r"machine 0 left before it said whether the run may begin"
        ):
            refusals.require_accepted(store)

    @pytest.mark.parametrize(("error", "code"), [(OutputExistsError("why"), 2), (OutOfReachError("why"), 1)])
    def test_the_exit_code_is_the_same(self, refusals, store, monkeypatch, error, code):
        monkeypatch.setattr(refusals, "TCPStore", lambda *arguments, **options: store)
        with pytest.raises(type(error), match=r"^why$"), refusals.refusal_told(1, "127.0.0.1", 1):
            raise error
        assert store.add("maskwright.heard", 0) == 0
        with pytest.raises(MaskwrightError, match=r"^machine 0 refuses the run: why$") as caught:
            refusals.require_accepted(store)
        assert caught.value.exit_code == code
        assert isinstance(caught.value, UserError) == (code == 2)
        assert store.add("maskwright.heard", 0) == 1

    def test_nobody_comes(self, refusals, caplog):
        with (
            pytest.raises(OutputExistsError, match=r"^why$"),
            refusals.refusal_told(2, "127.0.0.1", free_port()),
        ):
            raise OutputExistsError("why")
        [record] = caplog.records
        assert record.getMessage().startswith("the run is refused; other machines are told why")

    def test_alone_nobody_is_told(self, refusals, caplog, monkeypatch):
        monkeypatch.delattr(refusals, "TCPStore")
        with pytest.raises(OutputExistsError, match=r"^why$"), refusals.refusal_told(0, "127.0.0.1", 0):
            raise OutputExistsError("why")
        assert not caplog.records

    def test_what_fails_in_the_telling_hides_no_refusal(self, refusals, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with (
                pytest.raises(OutputExistsError, match=r"^why$"),
                refusals.refusal_told(1, "127.0.0.1", port),
            ):
                raise OutputExistsError("why")

        def interrupted(seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(refusals.time, "sleep", interrupted)
        with (
            pytest.raises(OutputExistsError, match=r"^why$"),
            refusals.refusal_told(1, "127.0.0.1", free_port()),
        ):
            raise OutputExistsError("why")

    def test_the_first_machine_does_not_come(self, tmp_path, monkeypatch):
        from maskwright.jobs.launching import local

        monkeypatch.setattr(local, "_MEETING_SECONDS", 0)
        port, plan = free_port(), LaunchPlan((), tmp_path / "r", "r", Machines(2))
        with pytest.raises(
            MaskwrightError,
            match=rf"the 2 machines of the run did not meet at 127\.0\.0\.1:{port} "
            r"\(RendezvousConnectionError: machine 0 did not answer for 0 s\); check that",
        ):
            local.run_workers(["no-such-program"], plan, local.Meeting(1, "127.0.0.1", port))
        assert not (tmp_path / "r").exists()

    def test_listener(self, monkeypatch):
        """Asked again and again, without growing pauses."""
        assert not wait_for_listener("127.0.0.1", free_port(), 0.0)
        with socket.create_server(("127.0.0.1", 0)) as server:
            address, tries, pauses = server.getsockname(), [], []

            def connect(place, timeout):
                tries.append(place)
                if len(tries) < 4:
                    raise ConnectionRefusedError
                return really(place, timeout)

            really = socket.create_connection
            monkeypatch.setattr(network.socket, "create_connection", connect)
            monkeypatch.setattr(network.time, "sleep", pauses.append)
            assert wait_for_listener(*address, 60.0)
        assert tries == [address] * 4
        assert pauses == [1.0] * 3


def test_variables(monkeypatch):
    from maskwright.jobs.launching import local

    monkeypatch.setattr(local, "available_cores", lambda: 9)
    plan = LaunchPlan((), Path("r"), "r", Machines(1, 4))
    made = local.worker_environment(plan, local.Meeting(), {})
    assert made == {
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": "2",
    }
    assert "OMP_NUM_THREADS" not in local.worker_environment(plan, local.Meeting(), {"OMP_NUM_THREADS": "7"})
    two = local.worker_environment(
        LaunchPlan((), Path("r"), "r", Machines(2, 16)), local.Meeting(0, "127.0.0.1", 1), {}
    )
    assert two["OMP_NUM_THREADS"] == "1"
