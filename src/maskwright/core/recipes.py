"""Find a recipe, take the part that a command needs, and apply the overrides.

A recipe is one YAML file with a section for each step it describes (`prepare`, `pretrain`,
`finetune`, ...), so one file leads from raw text to a fine-tuned model. It is named by a path, or
by the name of one that ships with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from .config import Config, apply_overrides, nearest_name, parse_config, read_yaml
from .errors import ConfigError

__all__ = ["list_recipes", "load_recipe", "recipe_sections"]

SECTIONS = ("prepare", "pretrain", "finetune", "evaluate")
ConfigT = TypeVar("ConfigT", bound=Config)


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the package, sorted."""
    folder = resources.files("maskwright") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_sections(recipe: str) -> dict[str, Any]:
    """Read a recipe as a mapping from section to values.

    Args:
        recipe: path of a YAML file, or the name of a shipped recipe.

    Raises:
        ConfigError: there is no such recipe, or it has an unknown section.
    """
    path = _find(recipe)
    values = read_yaml(path)
    values.pop("description", None)
    for name, section in values.items():
        if name not in SECTIONS:
            raise ConfigError(f'{path}: unknown section "{name}"{nearest_name(name, SECTIONS)}')
        if section is not None and not isinstance(section, dict):
            raise ConfigError(f'{path}: section "{name}" is {section!r}, expected keys inside it')
    return {name: section or {} for name, section in values.items()}


def load_recipe(cls: type[ConfigT], section: str, recipe: str | None, overrides: Sequence[str]) -> ConfigT:
    """Resolve one section of a recipe into a config.

    Args:
        cls: the config class of the section.
        section: its name.
        recipe: path or shipped name; None starts from the defaults.
        overrides: `key.path=value` texts, relative to the section.

    Raises:
        ConfigError: the recipe or a key or a value is wrong.
    """
    sections = recipe_sections(recipe) if recipe else {section: {}}
    if section not in sections:
        has = ", ".join(sections) or "nothing"
        raise ConfigError(f"{recipe}: has no section {section!r} (it has {has}); choose another recipe")
    values = apply_overrides(sections[section], overrides)
    return parse_config(cls, values, place=f"{recipe or 'defaults'}, section {section}")


def _find(recipe: str) -> Path:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"{recipe}: no such recipe file; check the path")
        return path
    names = list_recipes()
    if recipe not in names:
        raise ConfigError(f'unknown recipe "{recipe}"{nearest_name(recipe, names)}')
    return Path(str(resources.files("maskwright") / "recipes" / f"{recipe}.yaml"))
