"""What pods need beyond the resolved recipe: a small file goes into the manifest, the rest lies on claims.

A pod has its image, the ConfigMap of the manifest, and the claims. The user's `ds_config.json` goes into the
ConfigMap. Data and models are too large for it, so the paths that no claim has are named. Costs the reading
of one small file.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ConfigError
from ...core.files import is_remote
from ...core.log import get_logger

if TYPE_CHECKING:
    from ...training.pretrain_config import PretrainConfig

__all__ = ["POD_FOLDER", "READ", "WRITTEN", "pack_recipe"]

log = get_logger(__name__)

POD_FOLDER = "/etc/maskwright"  # where files of the ConfigMap appear
READ = ("data", "init_from", "evaluation.minimal_pairs")
WRITTEN = ("checkpoint.upload", "cache.folder")
_DEEPSPEED, _DEEPSPEED_NAME = "parallel.deepspeed_config", "ds_config.json"
_LOCAL_ADDRESSES = ("file://", "local://")


def pack_recipe(
    config: PretrainConfig, output: Path, claims: Sequence[str]
) -> tuple[PretrainConfig, dict[str, str]]:
    """The recipe as it is in pods, and the files that go with it; paths that no claim has are warned of.

    Args:
        config: the resolved recipe.
        output: the run's folder.
        claims: folders of the claims in the pods; relative paths begin in the first.

    Returns:
        The recipe with the places in the pods of what travels, and content by file name.

    Raises:
        ConfigError: the ds_config.json cannot be read, or is no JSON object.
    """
    paths = {name: attrgetter(name)(config) for name in (*READ, *WRITTEN)} | {"--output": str(output)}
    for name, path in paths.items():
        if path is not None and not _is_elsewhere(path) and not _is_on_claim(path, claims):
            _warn(name, path, claims)
    content = _deepspeed_text(config.parallel.deepspeed_config, claims)
    if content is None:
        return config, {}
    place = {"deepspeed_config": f"{POD_FOLDER}/{_DEEPSPEED_NAME}"}
    return config.replace(parallel=config.parallel.model_dump() | place), {_DEEPSPEED_NAME: content}


def _warn(name: str, path: str, claims: Sequence[str]) -> None:
    place = _in_pod(path, claims)
    log.warning(
        "%s is %s%s, which is on no claim (%s): %s; put it on a claim, and name its path there",
        name,
        path,
        "" if place == path else f" (in the pods {place})",
        ", ".join(claims),
        "pods have it only if their image does"
        if name in READ
        else "what is written there goes with its pod",
    )


def _is_elsewhere(path: str) -> bool:
    return is_remote(path) and not path.startswith(_LOCAL_ADDRESSES)


def _in_pod(path: str, claims: Sequence[str]) -> str:
    """The absolute path inside pods."""
    for start in _LOCAL_ADDRESSES:
        path = path.removeprefix(start)
    return "/" + posixpath.normpath(posixpath.join(claims[0], path)).lstrip("/")


def _is_on_claim(path: str, claims: Sequence[str]) -> bool:
    place = _in_pod(path, claims)
    folders = [_in_pod(claim, claims).rstrip("/") for claim in claims]
    return any(place == folder or place.startswith(f"{folder}/") for folder in folders)


def _deepspeed_text(path: str | None, claims: Sequence[str]) -> str | None:
    """Content of a ds_config.json, or None where there is none, or only its claim has it."""
    if path is None:
        return None
    try:
        text = Path(path).read_text("utf-8")
        found = json.loads(text)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if absent and path.startswith("/") and _is_on_claim(path, claims):
            return None
        raise ConfigError(
            f"{_DEEPSPEED} is {path}, which cannot be read here ({error.strerror}), so it cannot go into the "
            f"manifest; correct the path, or name it by its absolute path on a claim ({', '.join(claims)})"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} ({_DEEPSPEED}) is no JSON: {error}; correct it") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path} ({_DEEPSPEED}) holds a {type(found).__name__}, expected an object with DeepSpeed's "
            "settings; correct it"
        )
    return text
