"""Take possession of an output folder: empty, to be gone on with, or to be started again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config import VERSION_KEY, Config, dump_config, parse_config, read_yaml
from ..core.errors import ConfigError, OutputExistsError
from ..core.files import LOCK_NAME, TEMPORARY_MARK, prepare_output, storage_errors, write_text
from ..core.log import get_logger

__all__ = ["claim_output", "differences"]

log = get_logger(__name__)

CONFIG_NAME = "config.yaml"

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


def claim_output(
    config: Config,
    folder: Path,
    *,
    resume: bool,
    overwrite: bool,
    force: bool = False,
    accept_later: bool = False,
) -> None:
    """Make sure that a folder may be written, and put the resolved config into it.

    Args:
        config: what the work will follow.
        folder: the output folder.
        resume: go on with what is there; it must have been begun with the same settings.
        overwrite: remove what is there first.
        force: go on although settings differ; each difference is said in the log.
        accept_later: work that goes on keeps its config; the caller replaces it when all fits.

    Raises:
        OutputExistsError: the folder is occupied and neither was asked for.
        ConfigError: the work there was begun with other settings; each difference is named.
        StorageError: the storage refused.
    """
    if resume and overwrite:
        raise ConfigError("both resume and overwrite were asked for; choose one")
    begun = _holds_work(folder)
    prepare_output(folder, resume=resume or not begun, overwrite=overwrite and begun)
    path = folder / CONFIG_NAME
    if resume and begun and not path.exists():
        raise OutputExistsError(
            f"{folder}: is not empty and has no {CONFIG_NAME}, so nothing in it can be gone on with; "
            "choose another output"
        )
    if resume and begun:
        before = parse_config(type(config), read_yaml(path), str(path))
        found = differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        changed = [
            f"{name} was {old!r}, now {new!r}"
            for name, (old, new) in found.items()
            if name not in _FREE and not name.startswith(_FREE_PARTS)
        ]
        if changed and force:
            log.warning("%s: goes on with other settings, as forced: %s", folder, "; ".join(changed))
        elif changed:
            raise ConfigError(
                f"{folder}: was begun with other settings ({'; '.join(changed)}); resume with the same "
                f"settings,{' add --force,' if accept_later else ''} or add --overwrite to start again"
            )
        if accept_later:
            return
    write_text(path, dump_config(config))


def _holds_work(folder: Path) -> bool:
    """Anything but what a start leaves that was refused, or killed, before it did anything."""
    with storage_errors(folder):
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        # What a launcher wrote of its workers is no work.
        names = [path.name for path in files if path.relative_to(folder).parts[0] != "logs"]
    return any(name not in (CONFIG_NAME, LOCK_NAME) and TEMPORARY_MARK not in name for name in names)


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
