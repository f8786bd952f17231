"""Sums over the steps since the last training record, and the record made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .hooks import Record, padding_share

__all__ = ["Window"]


@dataclass
class Window:
    """What happened since the last record.

    Attributes:
        sums: losses, counts and other sums by name, of this process.
        means: rates and norms, which all processes have in common, added up over steps.
        seconds: of its steps.
        data_seconds: of them, waiting for data.
        steps: how many.
    """

    sums: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    data_seconds: float = 0.0
    steps: int = 0
    _noted: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Add further sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def note(self, values: Mapping[str, float]) -> None:
        """Note what a step had in common for all processes.

        Values that are not finite, of steps that were skipped, are told only where there is no other.
        """
        for name, value in values.items():
            known = self.means.get(name, 0.0)
            if not math.isfinite(value) and self._noted.get(name):
                continue
            if not math.isfinite(known):
                known = self._noted[name] = 0
            self.means[name] = known + value
            self._noted[name] = self._noted.get(name, 0) + math.isfinite(value)

    def record(
        self, flops_per_token: float, peak_flops: float, sums: Mapping[str, float] | None = None
    ) -> Record:
        """Means of losses and norms, speeds and shares.

        Args:
            flops_per_token: arithmetic of training on one token; 0 where unknown.
            peak_flops: matrix rate of all devices a second; 0 where unknown.
            sums: those of all processes; by default of this one.
        """
        sums, seconds = self.sums if sums is None else sums, max(self.seconds, 1e-9)
        speed, real = sums["tokens"] / seconds, sums.get("real_tokens", sums["tokens"])
        means = {name: value / max(1, self._noted[name]) for name, value in self.means.items()}
        record: Record = {
            **_mean_losses(sums),
            **means,
            "tokens_per_second": speed,
            "real_tokens_per_second": real / seconds,
            "padding_share": padding_share(sums["tokens"], real),
            "data_wait_share": self.data_seconds / seconds,
            "step_seconds": seconds / self.steps,
            **_mask_fields(sums),
        }
        if peak_flops:
            record["peak_share"] = speed * flops_per_token / peak_flops
        return record


def _mean_losses(sums: Mapping[str, float]) -> Record:
    """Each loss and its accuracy by its own count of targets."""
    record: Record = {}
    for name in [key.removesuffix("_targets") for key in sums if key.endswith("loss_targets")]:
        kind, targets = name.removesuffix("loss"), max(1.0, sums[f"{name}_targets"])
        record[name] = sums[f"{name}_sum"] / targets
        record[f"{kind}accuracy"] = sums.get(f"{kind}correct", 0.0) / targets
    return record


def _mask_fields(sums: Mapping[str, float]) -> Record:
    """How many tokens were masked, and how many should have been."""
    if "eligible" not in sums:
        return {}
    eligible = max(1.0, sums["eligible"])
    return {
        "mask_rate": sums["loss_targets"] / eligible,
        "eligible": int(sums["eligible"]),
        "expected_mask_rate": sums["expected_targets"] / eligible,
        "mask_variance": sums["mask_variance"],
    }
