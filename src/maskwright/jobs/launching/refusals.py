"""What machine 0 alone looks at before a run, told to the machines that come to meet it.

Only the first machine takes possession of the run's folder. Where it refuses, it hosts the meeting for some
more seconds, so that the others leave with its reason instead of waiting for it. Costs each launcher one
question more to the store of the first.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import timedelta

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined] # they are there
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from ...core.errors import MaskwrightError, UserError
from ...core.log import get_logger

__all__ = ["accept", "refusal_told", "require_accepted"]

log = get_logger(__name__)

_ANSWER, _HEARD = "maskwright.answer", "maskwright.heard"
_FAREWELL_SECONDS = 30.0
_GLANCE_SECONDS = 0.1
_STORE_FAULTS = (RuntimeError, ValueError)  # of torch, also where time is up


@contextlib.contextmanager
def refusal_told(others: int, host: str, port: int) -> Iterator[None]:
    """On machine 0: tell the others why the run is refused, if the block does that.

    Args:
        others: further machines of the run, at most; nothing is done where there are none.
        host: name of this machine, by which they come to it.
        port: where it listens then.

    Raises:
        UserError: the refusal, once all others have heard it, and at most half a minute later.
    """
    try:
        yield
    except UserError as error:
        if others:
            log.warning(
                "the run is refused; other machines are told why for at most %.0f s (Ctrl-C ends that): %s",
                _FAREWELL_SECONDS,
                error,
            )
            with contextlib.suppress(KeyboardInterrupt, *_STORE_FAULTS):
                _tell(error, others, host, port)
        raise


def _tell(error: UserError, others: int, host: str, port: int) -> None:
    end = time.monotonic() + _FAREWELL_SECONDS
    patience = timedelta(seconds=_FAREWELL_SECONDS)
    store = TCPStore(host, port, is_master=True, timeout=patience, wait_for_workers=False)
    store.set(_ANSWER, json.dumps([error.exit_code, str(error)]))
    while store.add(_HEARD, 0) < others and time.monotonic() < end:
        time.sleep(_GLANCE_SECONDS)


def accept(store: Store) -> None:
    """Let the machines go on that ask: this one, the first, has nothing against the run.

    Args:
        store: the one that they meet at.
    """
    store.set(_ANSWER, json.dumps(None))


def require_accepted(store: Store) -> None:
    """Wait for what machine 0 says of the run.

    Args:
        store: the one that they meet at.

    Raises:
        UserError: it refuses the run.
        MaskwrightError: it leaves for a reason that may pass.
        RendezvousConnectionError: it went away without a word.
    """
    try:
        answer = json.loads(store.get(_ANSWER))
    except _STORE_FAULTS as error:
        raise RendezvousConnectionError("machine 0 left before it said whether the run may begin") from error
    if answer is None:
        return
    with contextlib.suppress(*_STORE_FAULTS):
        store.add(_HEARD, 1)
    code, message = answer
    kind = UserError if code == UserError.exit_code else MaskwrightError
    raise kind(f"machine 0 refuses the run: {message}")
