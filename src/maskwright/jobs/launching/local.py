"""Run workers on this machine, alone or as one of several machines that meet at the first one.

Source: torchrun's elastic agent and c10d rendezvous (PyTorch documentation, torch.distributed.elastic).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousError,
    RendezvousHandler,
    RendezvousParameters,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from ...core.errors import Interrupted, MaskwrightError
from ...core.log import get_logger
from ...core.machine import available_cores
from .agent import LaunchAgent
from .endings import Ending, deciding_rank, last_words
from .logs import RankLogs, log_folder
from .network import interface_of, local_address, wait_for_listener
from .plan import LaunchPlan
from .refusals import accept, require_accepted

__all__ = ["Meeting", "run_workers", "worker_environment"]

log = get_logger(__name__)

_MEETING_SECONDS = 900  # how long machines wait for each other; a cluster starts them one by one
_LAST_CALL_SECONDS = 30  # how long those that are enough wait for more
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_LOUD = "torch.distributed.elastic"


@dataclass(frozen=True)
class Meeting:
    """Where machines meet.

    Attributes:
        node_rank: number of this machine; the first, 0, is where the others come to.
        host: its name or address.
        port: where it listens; 0 for any that is free, where there is one machine.
    """

    node_rank: int = 0
    host: str = "127.0.0.1"
    port: int = 0


def run_workers(command: Sequence[str], plan: LaunchPlan, meeting: Meeting = Meeting()) -> Ending:
    """Start the workers of this machine, start them again after a crash, and wait for their end.

    Args:
        command: what each worker runs: a program and its arguments; `tied_command` makes one that ends
            with this process.
        plan: how many there are, and where logs go.
        meeting: where machines meet.

    Returns:
        How it ended; `Ending.check` raises what belongs to it.

    Raises:
        Interrupted: stopped by a signal before anything ran.
        UserError: the first machine refuses the run.
        MaskwrightError: the machines did not meet.
        StorageError: the logs cannot be written.
    """
    node = f"-node-{meeting.node_rank}" if plan.machines.nodes > 1 else ""
    show = {"out": sys.stdout, "err": sys.stderr}
    variables = worker_environment(plan, meeting)
    with _environment(variables), _quiet_torch(), _meeting_errors(plan, meeting):
        handler = _meet(plan, meeting)
        logs = RankLogs(log_folder(plan.output, node))
        spec = WorkerSpec(
            role="worker",
            local_world_size=plan.machines.processes,
            entrypoint=command[0],
            args=tuple(command[1:]),
            rdzv_handler=handler,
            max_restarts=plan.restarts,
            local_addr=None,
        )
        agent = LaunchAgent(spec, logs, show, elastic=plan.machines.elastic)
        try:
            _run(agent, handler, is_host=meeting.node_rank == 0)
        finally:
            agent.stop_following()
    return _ending(agent)


def _run(agent: LaunchAgent, handler: RendezvousHandler, *, is_host: bool) -> None:
    closes = True
    try:
        with _handlers(agent):
            agent.run()
    except SignalException as error:
        # The other machines may go on, and this one may come back to them.
        closes = False
        raise Interrupted(f"stopped by {error.sigval.name}; workers were not waited for") from error
    except RendezvousError:
        if not agent.saved:
            raise
        log.warning("all ranks saved, and the meeting place is closed: machine 0 has left, so this one does")
    finally:
        # Nobody goes on without the first machine; and it may be gone already when all is well.
        if closes and (is_host or agent.verdict in ("refused", "crashed")):
            handler.shutdown()


def _ending(agent: LaunchAgent) -> Ending:
    words, told = None, False
    if agent.failures:
        rank = deciding_rank(agent.failures, agent.verdict)
        words = last_words(agent.logs.path(rank, "err"))
        told = rank == 0 and words is not None
    return Ending(agent.verdict, agent.failures, agent.logs.folder, agent.restarts, agent.asked, words, told)


def worker_environment(
    plan: LaunchPlan, meeting: Meeting, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables that workers need beyond those that torchrun sets.

    Args:
        plan: how many workers share this machine.
        meeting: where machines meet.
        given: variables that are set; what somebody has chosen stays.
    """
    wanted = {
        "OMP_NUM_THREADS": str(max(1, available_cores() // plan.machines.processes)),
        # Else workers of all starts share one store, and find the addresses of those that are gone.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    if plan.machines.nodes > 1:
        address = local_address(meeting.host, meeting.port, meeting.node_rank, _MEETING_SECONDS)
        if name := interface_of(address):
            wanted["GLOO_SOCKET_IFNAME"] = name  # which gloo would guess from the machine's name
    # SIGQUIT stays torchrun's: it ends everything at once. The others are ours.
    return {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT"} | {
        name: value for name, value in wanted.items() if name not in given
    }


def _meet(plan: LaunchPlan, meeting: Meeting) -> RendezvousHandler:
    """Host the place where machines meet, or come there and hear whether the run may begin."""
    if meeting.node_rank and not wait_for_listener(meeting.host, meeting.port, _MEETING_SECONDS):
        raise RendezvousConnectionError(f"machine 0 did not answer for {_MEETING_SECONDS} s")
    parameters = _parameters(plan, meeting)
    backend, store = create_backend(parameters)
    if meeting.node_rank:
        require_accepted(store)
    else:
        accept(store)
    return create_handler(store, backend, parameters)


def _parameters(plan: LaunchPlan, meeting: Meeting) -> RendezvousParameters:
    nodes = plan.machines.nodes
    return RendezvousParameters(
        backend="c10d",
        endpoint=f"{meeting.host}:{meeting.port}",
        run_id=plan.name,
        min_nodes=plan.machines.fewest,
        max_nodes=nodes,
        local_addr=local_address(meeting.host, meeting.port, meeting.node_rank),
        is_host=meeting.node_rank == 0,
        join_timeout=_MEETING_SECONDS,
        last_call_timeout=_LAST_CALL_SECONDS,
        read_timeout=_MEETING_SECONDS if nodes > 1 else 60,
    )


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _handlers(agent: LaunchAgent) -> Iterator[None]:
    """Pass signals on to the workers; outside the main thread none can be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = (*_SIGNALS, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in watched}
    for number in _SIGNALS:
        signal.signal(number, agent.ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keep torchrun's own lines and tracebacks from the terminal: ours say the same once."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_LOUD)]
    levels: dict[str, Any] = {name: logging.getLogger(name).level for name in names}
    wanted = logging.getLogger("maskwright").level == logging.DEBUG
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.DEBUG if wanted else logging.CRITICAL + 1)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _meeting_errors(plan: LaunchPlan, meeting: Meeting) -> Iterator[None]:
    try:
        yield
    except RendezvousError as error:
        place, fewest = f"{meeting.host}:{meeting.port}", plan.machines.fewest
        who = f"the {fewest} machines of the run" if fewest > 1 else "this machine and machine 0"
        raise MaskwrightError(
            f"{who} did not meet at {place} "
            f"({type(error).__name__}: {' '.join(str(error).split())}); check that all were started with the "
            "same --address and --nodes, that the port is free and open, and what the others said"
        ) from error
