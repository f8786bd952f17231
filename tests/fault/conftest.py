"""A corpus that needs every stage, prepared without any trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import maskwright
import tiny_world
from preparing import write_sources


@pytest.fixture(scope="session")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Values of a recipe."""
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def plain_files(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    folder = tmp_path_factory.mktemp("plain") / "data"
    maskwright.prepare(values, output=folder, workers=1)
    return tiny_world.prepared_files(folder)


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a recipe of these values: `write_recipe(values)`."""

    def write(values: dict[str, Any]) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({"prepare": values}))
        return path

    return write
