"""Looks at loss and gradient of a step before any weight changes, and refuses what would do harm.

A loss or gradient that is not a number is always refused. A spike, which is far out of what the
last steps had, is only told by default: on the published recipes a skipped batch would be a change
of the experiment, and in fine-tuning, where most gradients end near zero, the rare large ones are
those of the hard examples. `policy: skip` is for long pretraining runs, where one bad batch can
spoil the optimiser's averages for hundreds of steps. Medians are compared, so that a spike does not
hide the next one. The decision depends on numbers alone that are the same on every rank.

Cost: two short sorts a step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..core.config import Config
from ..core.errors import UserError
from ..parallel.gradient_norms import GradientNorms
from ..tokens.shards import TokenData

__all__ = ["MicroLoss", "SamplePlace", "SpikeConfig", "SpikeGuard", "place_of", "point_to_samples"]

# What makes the median of absolute deviations a standard deviation, if values are normal.
_NORMAL = 1.4826
# The spread counts as this share of the median at least; constant losses have none.
_LEAST_SPREAD = 0.01
_NAMED_SAMPLES = 4
_DIVERGED = "the run has diverged: lower optimizer.lr or use precision=fp32, and start again"
_SPIKING = "lower optimizer.lr, look at these samples, or set spikes.policy=warn to train on them"


class SpikeConfig(Config):
    """When a step is out of the ordinary, and what happens then."""

    policy: Literal["skip", "warn", "off"] = Field(
        "warn", description="what to do with spikes; values that are not finite are always skipped"
    )
    window: int = Field(100, ge=10, description="last steps to compare with; until then no step is a spike")
    norm_factor: float = Field(10.0, gt=1, description="gradient norms above so many medians are spikes")
    loss_deviations: float = Field(
        10.0, gt=0, description="losses so many robust standard deviations above the median are spikes"
    )
    max_skipped: int = Field(10, ge=1, description="skipped steps in a row that end the run")


@dataclass(frozen=True)
class MicroLoss:
    """What one micro-batch contributed to a step.

    Attributes:
        loss_sum: summed loss, in nats.
        num_targets: predictions that it sums over.
        samples: numbers of its samples, counted from the start of training.
    """

    loss_sum: float
    num_targets: int
    samples: Sequence[int] = ()

    @property
    def badness(self) -> float:
        """Mean loss, where not being a number is the worst."""
        mean = self.loss_sum / max(1, self.num_targets)
        return mean if math.isfinite(mean) else math.inf


class SpikeGuard:
    """Judges each step of a run: `watch`, then `accept` by the engine, then `report`.

    Args:
        config: what is out of the ordinary.
        locate: turns numbers of samples into lines that name their documents.
    """

    def __init__(
        self, config: SpikeConfig, locate: Callable[[Sequence[int]], Sequence[str]] | None = None
    ) -> None:
        self.config, self.locate = config, locate
        self.losses: deque[float] = deque(maxlen=config.window)
        self.norms: deque[float] = deque(maxlen=config.window)
        self.skipped_in_a_row = 0
        self.watch(0, 0.0)

    def watch(self, step: int, loss: float, batches: Sequence[MicroLoss] = ()) -> None:
        """Take what is known of a step before the engine asks.

        Args:
            step: its number, from 1.
            loss: mean over all its targets; over all ranks, where there are several.
            batches: its micro-batches, to find the one to blame.
        """
        self._step, self._loss, self._batches = step, loss, batches
        self._fault: str | None = None
        self._spike: str | None = None

    def accept(self, norms: GradientNorms) -> str | None:
        """Decide about the step that is watched.

        Args:
            norms: of its gradient.

        Returns:
            Why no weight may change; None to go on. A step that goes on is remembered.
        """
        self._fault = self._not_finite(norms)
        if self._fault is None:
            self._spike = self._out_of_range(norms)
        reason = self._fault or (self._spike if self.config.policy == "skip" else None)
        if reason is not None:
            self.skipped_in_a_row += 1
            return reason
        self.skipped_in_a_row = 0
        self.losses.append(self._loss)
        self.norms.append(norms.total)
        return None

    def blame(self, gather: Callable[[Any], list[Any]]) -> None:
        """After `accept`, where something was found: look for the worst micro-batch on all ranks.

        Args:
            gather: tells all ranks a value and returns theirs; called on all of them or on none.
        """
        if self._fault or self._spike:
            worst = max(self._batches, key=lambda batch: batch.badness, default=None)
            self._batches = [batch for batch in gather(worst) if batch is not None]

    def report(self, refused: str | None) -> str | None:
        """What to tell people about the step, once the engine is done with it.

        Args:
            refused: the engine's reason for not changing weights, its own or that of `accept`.

        Returns:
            A line, or None for an ordinary step.

        Raises:
            UserError: too many steps in a row were refused.
        """
        found = self._fault or self._spike
        if found is None:
            return None if refused is None else f"{refused}; the step was skipped and no weight changed"
        samples = self.describe(self._suspects())
        if refused is None:
            return f"WARNING: {found}{samples}"
        if self.skipped_in_a_row >= self.config.max_skipped:
            remedy = _SPIKING if self._fault is None else _DIVERGED
            raise UserError(
                f"step {self._step}: {found}; it is the last of {self.skipped_in_a_row} steps in a row that "
                f"were skipped{samples}; {remedy}"
            )
        return f"{found}; the step was skipped and no weight changed{samples}"

    def _not_finite(self, norms: GradientNorms) -> str | None:
        if not math.isfinite(self._loss):
            return f"the loss is {self._loss}"
        if norms.finite:
            return None
        bad = [f"{name} {norm}" for name, norm in norms.groups.items() if not math.isfinite(norm)]
        return f"the gradient is not finite ({', '.join(bad) or norms.total})"

    def _out_of_range(self, norms: GradientNorms) -> str | None:
        config = self.config
        if config.policy == "off" or len(self.norms) < config.window:
            return None
        usual = median(self.norms)
        if norms.total > config.norm_factor * usual > 0:
            return (
                f"the gradient norm is {norms.total:.4g}, the median of the last {config.window} steps is "
                f"{usual:.4g}"
            )
        usual = median(self.losses)
        spread = _NORMAL * median(abs(loss - usual) for loss in self.losses)
        spread = max(spread, _LEAST_SPREAD * abs(usual))
        if self._loss > usual + config.loss_deviations * spread:
            return (
                f"the loss is {self._loss:.4f}, the median of the last {config.window} steps is {usual:.4f} "
                f"and their spread {spread:.4f}"
            )
        return None

    def _suspects(self) -> Sequence[int]:
        """Samples of the micro-batch with the highest loss."""
        return max(self._batches, key=lambda batch: batch.badness).samples if self._batches else ()

    def describe(self, samples: Sequence[int]) -> str:
        """Name samples, and the documents of the first few where they are known.

        Args:
            samples: their numbers, counted from the start of training.

        Returns:
            Text to append to a message; empty where there are no samples.
        """
        if not samples:
            return ""
        text = f"; highest loss in samples {_ranges(samples)}"
        if self.locate is None:
            return text
        named = list(self.locate(samples[:_NAMED_SAMPLES]))
        if len(samples) > _NAMED_SAMPLES:
            named.append(f"and {len(samples) - _NAMED_SAMPLES} more")
        return f"{text} ({'; '.join(named)})"

    def state(self) -> dict[str, Any]:
        """Everything that later decisions depend on, JSON-like."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state from `state()`; an empty one starts anew."""
        self.losses = deque(state.get("losses", ()), self.config.window)
        self.norms = deque(state.get("norms", ()), self.config.window)
        self.skipped_in_a_row = int(state.get("skipped_in_a_row", 0))


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers with their runs drawn together: `3, 7 to 9`."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)


@dataclass(frozen=True)
class SamplePlace:
    """Where a sample comes from.

    Attributes:
        sample: its number, counted from the start of training.
        source: source of its documents; empty where the data has one source.
        shards: paths of the token files.
        documents: numbers of its documents in the split, as `TokenData.document` takes them.
    """

    sample: int
    source: str
    shards: tuple[str, ...]
    documents: tuple[int, ...]

    def __str__(self) -> str:
        word = "document" if len(self.documents) == 1 else "documents"
        source = f" of source {self.source}" if self.source else ""
        return f"sample {self.sample}: {word} {_ranges(self.documents)}{source} in {', '.join(self.shards)}"


def place_of(data: TokenData, sample: int, positions: npt.NDArray[np.int64]) -> SamplePlace:
    """Find the documents of a sample. Reads all ends of documents of the shards that it lies in.

    Args:
        data: the split.
        sample: number of the sample.
        positions: places of its tokens in the split, -1 for added ones; int64, at least one place.

    Returns:
        Source, shards and documents.
    """
    places = np.sort(positions[positions >= 0])
    numbers = np.searchsorted(data.token_ends, places, side="right")
    documents: list[int] = []
    for number in np.unique(numbers).tolist():
        shard = data.shards[number]
        first_token = int(data.token_ends[number]) - shard.num_tokens
        first_document = int(data.document_ends[number]) - shard.num_documents
        # Each document is closed by one id that its length leaves out.
        ends = np.cumsum(data.document_lengths(number, shard.num_documents) + 1)
        inside = np.searchsorted(ends, places[numbers == number] - first_token, side="right")
        documents += (first_document + np.unique(inside)).tolist()
    shards = [data.shards[number] for number in np.unique(numbers).tolist()]
    paths = tuple(shard.tokens.path for shard in shards)
    return SamplePlace(sample, shards[0].source, paths, tuple(documents))


def point_to_samples(
    data: TokenData, batch: Callable[[int, int], Any], samples: Sequence[int]
) -> list[SamplePlace]:
    """Find the documents of some samples.

    Args:
        data: the split.
        batch: gives samples by number of the first and count, with their `positions`; such as
            `SampleStream.batch`.
        samples: numbers of the samples, counted from the start of training.
    """
    return [place_of(data, number, np.ravel(batch(number, 1).positions)) for number in samples]
