"""How the workers of a run ended, and what follows from it.

The agent of torchrun knows two ends: all is well, or try again. Ours are four, so each exit code of the
command line keeps its meaning.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...core.errors import Interrupted, MaskwrightError, UserError

__all__ = ["EXIT_CODES", "Ending", "Verdict", "judge", "last_words"]

Verdict = Literal["finished", "refused", "interrupted", "crashed"]
EXIT_CODES: Mapping[Verdict, int] = {
    "finished": 0,
    "refused": UserError.exit_code,
    "interrupted": Interrupted.exit_code,
    "crashed": MaskwrightError.exit_code,
}
_SPOKEN = re.compile(r"^(?:rank \d+: )?(?:error|interrupted): ")
_LONGEST = 20
# A worker that was told to stop before it could listen dies of the signal; nothing is lost by that.
_DIED_ASKED = frozenset(-number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))


def judge(codes: Mapping[int, int], *, asked: bool = False) -> Verdict:
    """What the exit codes of workers mean together.

    Args:
        codes: by rank, of those that ended; negative for the signal that killed one.
        asked: whether they were told to stop.
    """
    failures = {code for code in codes.values() if code}
    if not failures:
        return "finished"
    harmless = {Interrupted.exit_code, *(_DIED_ASKED if asked else ())}
    if failures <= harmless:
        return "interrupted"
    if any(code < 0 for code in failures - harmless):
        return "crashed"
    return "refused" if UserError.exit_code in failures else "crashed"


def last_words(path: Path) -> str | None:
    """What a worker said why it ended: its error line and what belongs to it, or None.

    Args:
        path: what it wrote to stderr.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for number in range(len(lines) - 1, -1, -1):
        if _SPOKEN.match(lines[number]):
            said = "\n".join(lines[number : number + _LONGEST])
            return _SPOKEN.sub("", said)
    return None


@dataclass(frozen=True)
class Ending:
    """How a launch ended.

    Attributes:
        verdict: what it means.
        codes: exit codes of the workers that failed, by rank, in the order in which they ended.
        logs: folder with what all workers wrote.
        restarts: how often they were started again.
        asked: name of the signal that the launcher was sent, if any.
        words: what the worker that decides said, if anything.
        told: whether rank 0 has said it on this terminal already.
    """

    verdict: Verdict
    codes: Mapping[int, int]
    logs: Path
    restarts: int = 0
    asked: str | None = None
    words: str | None = None
    told: bool = False

    @property
    def exit_code(self) -> int:
        """What the command line returns."""
        return EXIT_CODES[self.verdict]

    @property
    def rank(self) -> int:
        """The worker that decides: one that was killed, else the first whose code is the verdict's."""
        return deciding_rank(self.codes, self.verdict)

    def check(self) -> None:
        """Say how it ended, unless all is well.

        Raises:
            UserError: a worker refused its input.
            Interrupted: they stopped after saving.
            MaskwrightError: one crashed, and all restarts were used up.
        """
        if self.verdict == "finished":
            return
        if self.verdict == "interrupted":
            raise Interrupted(f"stopped by {self.asked or 'a signal to its workers'} after saving")
        how = describe_code(self.codes[self.rank])
        said = f": {self.words}" if self.words and not self.told else " (see above)" if self.told else ""
        after = f", after {self.restarts} restart{'s' * (self.restarts > 1)}" if self.restarts else ""
        error = UserError if self.verdict == "refused" else MaskwrightError
        raise error(f"rank {self.rank} {how}{after}{said}; the logs of all ranks are in {self.logs}")


def deciding_rank(codes: Mapping[int, int], verdict: Verdict) -> int:
    """The worker that decides the verdict.

    Args:
        codes: exit codes by rank, in the order in which they ended.
        verdict: what they mean.
    """

    def order(rank: int) -> tuple[bool, bool, int]:
        killed = codes[rank] < 0 and -codes[rank] != signal.SIGTERM
        # A crash is told of the first that ended; what all say alike is told of the first rank.
        return not killed, codes[rank] != EXIT_CODES[verdict], 0 if verdict == "crashed" else rank

    return min((rank for rank, code in codes.items() if code), key=order)


def describe_code(code: int) -> str:
    """An exit code in words, as the end of "rank 0 ..."."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (perhaps for its memory)" if name == "SIGKILL" else "")
