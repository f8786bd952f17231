"""The weight files of a Hugging Face folder, whichever of their forms they have.

`safetensors` first, in one file or in several with an index; else `pytorch_model.bin`, which is
unpickled with nothing but tensors allowed. Cost: the weights are in memory once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import CheckpointError, DataError
from ...core.files import read_json

__all__ = ["WEIGHTS_NAME", "load_pickle", "load_tensors", "weights_path"]

WEIGHTS_NAME = "model.safetensors"
_NAMES = (
    WEIGHTS_NAME,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_REMEDY = "export the model again"


def weights_path(folder: Path) -> Path:
    """The file that holds the weights of a folder, or the index of the files that do.

    Raises:
        CheckpointError: there is none.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: has no {WEIGHTS_NAME}; give the folder of an exported model")


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a folder, with published names.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    path = weights_path(folder)
    if path.suffix != ".json":
        return _load_file(path)
    tensors: dict[str, Tensor] = {}
    for name in _shards(path):
        if not (folder / name).is_file():
            raise CheckpointError(f"{path}: names {name}, which is not there; get the file again")
        tensors |= _load_file(folder / name)
    return tensors


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(dict(read_json(index))["weight_map"].values()))
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{index}: is no index of weights ({error}); {_REMEDY}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: names {name!r}, expected files beside it; {_REMEDY}")
    return names


def _load_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".bin":
        found = load_pickle(path)
        if not isinstance(found, dict):
            raise CheckpointError(f"{path}: holds a {type(found).__name__}, expected tensors; {_REMEDY}")
        return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def load_pickle(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read a file of `torch.save` without running anything that it brings.

    Args:
        path: the file.
        allowed: classes that may be made beside tensors and plain values; or pairs of a class and
            the name it has in the file.

    Raises:
        CheckpointError: it is damaged, or holds objects beside tensors and plain values.
    """
    from pickle import UnpicklingError

    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = " ".join(str(error).split())
        named = reason.partition("GLOBAL ")[2].split(" ")[0]
        found = f"an object of {named}" if named else "something else"
        raise CheckpointError(
            f"{path}: holds {found} beside tensors and plain values, and reading it could run code; "
            "save the weights alone and give that file"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
