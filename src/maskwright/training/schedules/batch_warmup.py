"""Batches that grow at the beginning of a run, when small ones teach as much a sample.

The size depends on the samples seen alone, so a resumed run goes on as if it had never stopped.

Source: Brown et al., GPT-3, arXiv 2005.14165, appendix B, where the batch grows linearly; McCandlish
et al., arXiv 1812.06162, on why the useful size grows with training.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...core.errors import ConfigError

__all__ = ["BatchWarmup"]


@dataclass(frozen=True)
class BatchWarmup:
    """Sizes of the steps of a run.

    Attributes:
        sequences: of a step after the warm-up.
        multiple: sizes during the warm-up are multiples of this: the micro-batch times the ranks.
        warmup_from: sequences of the first step; None: there is no warm-up.
        warmup_samples: samples in which the size grows linearly to `sequences`.

    Raises:
        ConfigError: the first step would be larger than the last, or one of the two is missing.
    """

    sequences: int
    multiple: int
    warmup_from: int | None = None
    warmup_samples: int = 0

    def __post_init__(self) -> None:
        if (self.warmup_from is None) != (self.warmup_samples == 0):
            raise ConfigError(
                f'"batch.warmup_from" is {self.warmup_from} and batch.warmup_samples {self.warmup_samples}; '
                "set both or none"
            )
        if self.warmup_from is not None and self.warmup_from > self.sequences:
            raise ConfigError(
                f'"batch.warmup_from" is {self.warmup_from}, more than batch.sequences ({self.sequences}); '
                "lower it"
            )

    def sequences_at(self, samples_consumed: int) -> int:
        """Sequences of the step that begins after so many samples.

        Args:
            samples_consumed: samples of all steps before.

        Returns:
            Rounded down to `multiple`, at least one of them; it never falls, and ends at `sequences`.
        """
        if self.warmup_from is None or samples_consumed >= self.warmup_samples:
            return self.sequences
        growth = (self.sequences - self.warmup_from) * samples_consumed // self.warmup_samples
        rounded = (self.warmup_from + growth) // self.multiple * self.multiple
        return min(self.sequences, max(self.multiple, rounded))
