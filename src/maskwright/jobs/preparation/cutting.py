"""What the setting `words` asks for: how to cut texts into words, and what names that by its content."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...core.files import read_bytes
from ...tokens.segmentation import Cutter, make_cutter
from ..prepare_config import WordsConfig

__all__ = ["identify_words", "open_cutter"]


def open_cutter(config: WordsConfig) -> Cutter | None:
    """How to cut texts, or None where no words are asked for.

    Args:
        config: of the words.

    Raises:
        DataError: the list of words cannot be read.
        MissingDependencyError: the library is not installed.
    """
    if config.segmenter == "none":
        return None
    return make_cutter(config.segmenter, None if config.dictionary is None else Path(config.dictionary))


def identify_words(config: WordsConfig) -> dict[str, Any]:
    """What decides the words: the segmenter, its version, and the list by its content; no path.

    Args:
        config: of the words.

    Returns:
        Empty where no words are asked for.

    Raises:
        DataError: the list is missing, or holds no words.
        MissingDependencyError: the library is not installed.
    """
    if config.segmenter == "none":
        return {}
    found: dict[str, Any] = {"segmenter": config.segmenter}
    if config.dictionary is not None:
        found["dictionary"] = hashlib.sha256(read_bytes(config.dictionary)).hexdigest()
    if config.segmenter != "spaces":
        open_cutter(config)  # refuses what is missing or wrong before the long work begins
        found["library"] = f"rjieba {version('rjieba')}"
    return found
