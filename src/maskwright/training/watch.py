"""What looks after a run from the side; the loop tells it where it is.

Here are what the loop calls and the error that it ends with; `watching/` has the one that does something.
"""

from __future__ import annotations

from ..core.errors import MaskwrightError

__all__ = ["Watch", "WorkerLost"]


class WorkerLost(MaskwrightError):  # noqa: N818 - named for what happened, as Interrupted is
    """Another process of the run died, hangs or cannot be reached; says which, and where it was last."""


class Watch:
    """Hears of every step, and does nothing with it: what tests and single processes need."""

    def begin(self, step: int) -> None:
        """A step begins."""

    def phase(self, name: str) -> None:
        """Within a step, or between two, the run does something else now."""

    def end(self, **values: float) -> None:
        """The step is done; with its loss, norm, learning rate and seconds."""

    def busy(self, seconds: list[float]) -> tuple[dict[str, float], str | None]:
        """At every training record: how long each rank computed for itself since the last one.

        Returns:
            Fields for the record, and an event to tell, or None.
        """
        return {}, None

    def failed(self, error: BaseException) -> BaseException:
        """The run ends with an error; returns the one to raise in its place."""
        return error

    def close(self) -> None:
        """The run is over."""
