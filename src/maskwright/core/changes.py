"""What changed between the settings of a run and those that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import VERSION_KEY, Config

__all__ = ["changed_settings", "differences"]

# What may change when a run goes on: how often it is looked at and saved, how it is cut into
# micro-batches, and where its files lie. None of it changes the result.
_FREE = frozenset(
    {
        "log_every_steps",
        "evaluation.every_steps",
        "evaluate_every_epochs",
        "keep_checkpoints",
        "activation_checkpointing",
        "compile",
        "batch.micro_sequences",
        "micro_batch_size",
        "device",
        "data",  # a checkpoint knows the fingerprint of its data
        "tokens_per_shard",
        "tracking.trackers",
        "tracking.project",
        "tracking.name",
        "guards.level",
        "guards.accumulation",
        "profile.steps",
        "profile.first",
    }
)
# Nor do these parts: over how many processes it is spread, what of it is kept, and how data is fetched.
_FREE_PARTS = ("parallel.", "checkpoint.", "cache.")


def changed_settings(before: Config, after: Config) -> list[str]:
    """The settings that differ and decide what comes out of a run, each with both values.

    Args:
        before: what the run was begun with.
        after: what it is to go on with.
    """
    found = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    return [
        f"{name} was {old!r}, now {new!r}"
        for name, (old, new) in found.items()
        if name not in _FREE and not name.startswith(_FREE_PARTS)
    ]


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Where two nested mappings differ: dotted key to both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*before, *after} - {VERSION_KEY}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found[prefix + name] = (old, new)
    return found
