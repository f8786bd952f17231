"""torchrun's agent, taught what our exit codes mean.

It differs from the one it extends in four things. A worker that refuses its input (2) or stops after
saving (3) is not started again. When one worker ends badly the others get some seconds to end by
themselves, so that the cause is known and nobody is cut off while saving. A signal to the launcher
is passed on to the workers, which save and stop, instead of killing them. And where machines may come and
go, workers save before they start again in another number, and those of a machine that was not asked to
stop do so when another one was.
"""

from __future__ import annotations

import signal
import time
from subprocess import Popen
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from ...core.errors import Interrupted
from ...core.log import get_logger
from .endings import Verdict, deciding_rank, describe_code, judge
from .logs import Follower, RankLogs

__all__ = ["LaunchAgent"]

log = get_logger(__name__)

# How long the others may take after the first bad end: with 2 and 3 they are on their way out too.
_PATIENCE: dict[Verdict, float] = {"interrupted": 120.0, "refused": 30.0, "crashed": 5.0}
_GLANCE_SECONDS = 0.1
# A first request lets workers save; who asks again wants it sooner.
_LADDER = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


class LaunchAgent(LocalElasticAgent):
    """Starts, watches and stops the workers of one machine.

    Args:
        spec: what to run, and how the machines meet.
        logs: where workers write.
        show: streams of this process by name (`out`, `err`), for what rank 0 writes.
        elastic: whether machines may come and go.
    """

    def __init__(
        self, spec: WorkerSpec, logs: RankLogs, show: dict[str, Any], *, elastic: bool = False
    ) -> None:
        super().__init__(spec, logs)
        self.logs = logs
        self.asked: str | None = None
        self.failures: dict[int, int] = {}  # exit codes by rank, in the order in which they were seen
        self.restarts = 0
        self.verdict: Verdict = "finished"
        self._show, self._elastic = show, elastic
        self._followers: list[Follower] = []
        self._requests = 0
        self._since: float | None = None
        self._meeting = False

    @property
    def saved(self) -> bool:
        """Whether the last workers left because they, or those of another machine, were asked to."""
        return self.verdict == "interrupted"

    def ask_to_stop(self, number: int, frame: FrameType | None = None) -> None:
        """Let the workers save and stop; a handler of signals.

        Args:
            number: of the signal.
            frame: not used.

        Raises:
            Interrupted: nothing runs yet, as machines are waited for.
        """
        self._requests += 1
        self.asked = self.asked or signal.Signals(number).name
        self._refuse_to_wait()
        self._pass_on()

    def _refuse_to_wait(self) -> None:
        if self.asked and self._meeting:
            raise Interrupted(f"stopped by {self.asked} while waiting for the other machines")

    def _processes(self) -> dict[int, Popen[bytes]]:
        """The workers by local rank."""
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        return {local: handler.proc for local, handler in handlers.items()}

    def _pass_on(self) -> None:
        for process in self._processes().values():
            if process.poll() is None:
                process.send_signal(_LADDER[min(self._requests, len(_LADDER)) - 1])

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        self._meeting = True
        try:
            self._refuse_to_wait()
            super()._rendezvous(worker_group)
        finally:
            self._meeting = False

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        if not self.failures:  # nothing is wrong: another machine has come
            log.info("another machine is there: all ranks save, and start again with it")
            self._let_save()
        super()._restart_workers(worker_group)

    def _let_save(self) -> None:
        """Ask the workers to save and leave, and wait for that."""
        for process in self._processes().values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _PATIENCE["interrupted"]
        while time.monotonic() < end and any(one.poll() is None for one in self._processes().values()):
            time.sleep(_GLANCE_SECONDS)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._since, self.failures, self.verdict = None, {}, "finished"
        started = super()._start_workers(worker_group)
        if any(worker.global_rank == 0 for worker in worker_group.workers):
            self._followers = [
                Follower(self.logs.path(0, name), stream) for name, stream in self._show.items()
            ]
        if self.asked:  # while they were being started
            self._pass_on()
        return dict(started)

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        super()._stop_workers(worker_group)
        self.stop_following()

    def stop_following(self) -> None:
        """Show the rest of what rank 0 wrote."""
        for follower in self._followers:
            follower.close()
        self._followers = []

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        processes = self._processes()
        codes = {worker.global_rank: processes[worker.local_rank].poll() for worker in worker_group.workers}
        self.failures |= {rank: code for rank, code in codes.items() if code and rank not in self.failures}
        if not self.failures:
            return self._look(worker_group)
        self._since = time.monotonic() if self._since is None else self._since
        self.verdict = judge(self.failures, asked=self.asked is not None)
        if None in codes.values() and time.monotonic() - self._since < _PATIENCE[self.verdict]:
            return RunResult(state=WorkerState.HEALTHY)
        if self._elastic and self.saved and not self.asked:
            log.warning("another machine was asked to stop; all ranks saved, and the others start again")
            self._remaining_restarts += 1  # which is no crash, and costs no restart
        elif self.verdict != "crashed" or self.asked:
            self._remaining_restarts = 0
        elif self._remaining_restarts > 0:
            self._tell_restart(worker_group.spec.max_restarts)
        return self._look(worker_group)

    def _look(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        return result

    def _tell_restart(self, limit: int) -> None:
        self.restarts += 1
        rank = deciding_rank(self.failures, self.verdict)
        log.warning(
            "rank %d %s; all ranks start again from the newest checkpoint (restart %d of %d)",
            rank,
            describe_code(self.failures[rank]),
            self.restarts,
            limit,
        )
