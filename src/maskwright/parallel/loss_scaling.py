"""Loss scaling for fp16: keeps small gradients from vanishing, and backs off where large ones overflow.

fp16 has no numbers below 6e-8. The loss is multiplied by a power of two before the backward pass, and
the gradient is divided by it in fp32, which is exact. A gradient that is not finite skips its step and
halves the scale; many good steps in a row double it. Cost: one skipped step now and then.

Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2. Unlike most implementations it stops
with a reason when the scale has collapsed, instead of skipping steps for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import UserError
from ..core.log import get_logger

__all__ = ["LossScaler", "ScaleChange"]

log = get_logger(__name__)
_HISTORY = 64


@dataclass(frozen=True)
class ScaleChange:
    """A change of the scale.

    Attributes:
        step: number of the step after which it changed, counted from the start of training.
        before: scale of that step.
        after: scale from the next step on.
    """

    step: int
    before: float
    after: float


class LossScaler:
    """What the loss is multiplied with, as a state machine of one event: was the gradient finite?

    Args:
        initial: first scale; a power of two, as the following ones.
        growth_interval: finite gradients in a row after which the scale doubles.
        minimum: smallest scale; when it overflows too, the run cannot go on.
        maximum: largest scale.

    Attributes:
        scale: what the loss is multiplied with now.
        history: the last changes, oldest first.
    """

    def __init__(
        self,
        initial: float = 2.0**16,
        growth_interval: int = 2000,
        minimum: float = 2.0**-13,
        maximum: float = 2.0**24,
    ) -> None:
        assert minimum <= initial <= maximum
        assert growth_interval >= 1
        assert all(math.frexp(value)[0] == 0.5 for value in (initial, minimum, maximum))
        self.scale = float(initial)
        self.growth_interval, self.minimum, self.maximum = growth_interval, minimum, maximum
        self.history: deque[ScaleChange] = deque(maxlen=_HISTORY)
        self._steps = self._good_steps = 0

    def update(self, found_inf: bool) -> str | None:
        """Take note of one step.

        Args:
            found_inf: whether the scaled gradient had a value that is not finite.

        Returns:
            Why the step must be skipped, or None.

        Raises:
            UserError: the smallest scale overflowed.
        """
        self._steps += 1
        if found_inf:
            return self._overflow()
        self._good_steps += 1
        if self._good_steps >= self.growth_interval:
            self._good_steps = 0
            if self.scale < self.maximum:
                self._change(self.scale * 2)
        return None

    def _overflow(self) -> str:
        self._good_steps = 0
        if self.scale <= self.minimum:
            raise UserError(
                f"step {self._steps}: the gradient is not finite even at the smallest loss scale, "
                f"{self.scale:g} ({self._said()}); the run diverges or fp16 is too narrow for it: set "
                "precision=bf16 or fp32, or lower optimizer.lr, and resume from an earlier checkpoint"
            )
        before = self.scale
        self._change(before / 2)
        return f"the fp16 gradient overflowed at loss scale {before:g}; it is {self.scale:g} now"

    def _change(self, after: float) -> None:
        change = ScaleChange(self._steps, self.scale, after)
        self.history.append(change)
        self.scale = after
        log.info("step %d: loss scale %g -> %g", change.step, change.before, change.after)

    def _said(self) -> str:
        """The last changes in short."""
        last = list(self.history)[-3:]
        return "; ".join(f"{change.after:g} since step {change.step}" for change in last) or "never changed"

    def state(self) -> dict[str, int]:
        """Everything that decides what comes next, as integers."""
        return {
            "exponent": round(math.log2(self.scale)),
            "good_steps": self._good_steps,
            "steps": self._steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state from `state()`."""
        self.scale = 2.0 ** int(state["exponent"])
        self._good_steps, self._steps = int(state["good_steps"]), int(state["steps"])
