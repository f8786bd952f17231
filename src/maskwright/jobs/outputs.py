"""Take possession of an output folder: empty, to be gone on with, or to be started again."""

from __future__ import annotations

from pathlib import Path

from ..core.changes import changed_settings
from ..core.config import Config, dump_config, parse_config, read_yaml
from ..core.errors import ConfigError, OutputExistsError
from ..core.files import LOCK_NAME, TEMPORARY_MARK, prepare_output, storage_errors, write_text
from ..core.log import get_logger

__all__ = ["claim_output"]

log = get_logger(__name__)

CONFIG_NAME = "config.yaml"


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
        changed = changed_settings(parse_config(type(config), read_yaml(path), str(path)), config)
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
