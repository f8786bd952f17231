"""How many samples a step takes, and how they are dealt to ranks and micro-batches.

A step is a run of samples in their order. Where samples are equally long it has a fixed number of them,
perhaps fewer at the beginning of a run; where they are not it takes as many as fill its tokens. Both
depend on the number of samples consumed alone, so a resumed run goes on as if it had never stopped.

Source: RoBERTa (arXiv 1907.11692, section 4.2), which enlarges batches of short inputs to about the
same number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..tokens.stream import SampleStream

__all__ = ["StepSizes"]


@dataclass(frozen=True)
class StepSizes:
    """Sizes of steps and micro-batches.

    Attributes:
        samples: the samples of the run.
        sequences_at: full-length sequences of the step that begins after so many samples.
        micro_sequences: full-length sequences that one rank computes at a time.
        by_tokens: whether a step takes as many samples as fill its tokens.
        about: what decides the sizes of steps, to compare when a run is resumed.
    """

    samples: SampleStream
    sequences_at: Callable[[int], int]
    micro_sequences: int
    by_tokens: bool = False
    about: Mapping[str, int | None] = field(default_factory=dict)

    def samples_at(self, consumed: int) -> int:
        """Samples of the step that begins after `consumed` samples, over all ranks."""
        sequences = self.sequences_at(consumed)
        if not self.by_tokens:
            return sequences
        return self.samples.count_for_budget(consumed, sequences * self.samples.sequence_length)

    def micro_batches(
        self, first: int, count: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, int]]:
        """First sample and number of samples of each micro-batch of a rank.

        Args:
            first: first sample of the step.
            count: samples of the step.
            rank: number of the process; each takes an equal run of samples, up to one.
            world_size: number of processes.
        """
        start, stop = first + rank * count // world_size, first + (rank + 1) * count // world_size
        while start < stop:
            size = min(self._micro_batch(start), stop - start)
            yield start, size
            start += size

    def _micro_batch(self, first: int) -> int:
        if not self.by_tokens:
            return self.micro_sequences
        return self.samples.count_for_budget(first, self.micro_sequences * self.samples.sequence_length)
