"""The base of every config: frozen, strict, and clear about what is wrong.

A config is a tree of small frozen models. It is read from YAML or a mapping, changed by dotted
overrides (`optimizer.lr=6e-4`), written back with a format version, and never mutated. An unknown
key is answered with its full path and the nearest valid name; a wrong value with what was given
and what was expected.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from .errors import ConfigError
from .files import read_bytes

__all__ = [
    "Config",
    "apply_overrides",
    "dump_config",
    "load_yaml",
    "nearest_name",
    "parse_config",
    "read_yaml",
]

ConfigT = TypeVar("ConfigT", bound="Config")
VERSION_KEY = "format_version"
# PyYAML lets faults of its value parsers through as they are: an impossible date, a number of
# thousands of digits, nesting deeper than the interpreter's stack (or an alias inside itself).
_YAML_FAULTS = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where PyYAML is older: `1e4` is a number, and `on`, `off`, `yes`, `no` are text."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number, and U+0085, which would come back as a space."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _represent_text)
_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


class Config(BaseModel):
    """Base of all configs. A subclass raises `format_version` when old files need a change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    format_version: ClassVar[int] = 1

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1; somebody who writes `lr: true` means something else."""
        if isinstance(value, bool) and not _takes_bool(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"is {str(value).lower()}, expected another kind of value")
        return value

    @classmethod
    def upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any]:
        """Change values written by an older format version into today's; override when needed."""
        return values

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like any other config."""
        return parse_config(type(self), {**self.model_dump(), **changes}, place="replace()")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it is not YAML, or not a mapping; the message has the line.
    """
    return load_yaml(read_bytes(path), str(path))


def load_yaml(content: bytes, place: str) -> dict[str, Any]:
    """Read a YAML mapping that is in memory.

    Args:
        content: UTF-8.
        place: where it comes from, for messages.

    Raises:
        ConfigError: it is not YAML, or not a mapping; the message has the line.
    """
    try:
        value = _copy_tree(yaml.load(content.decode(), _Loader))
    except _YAML_FAULTS as error:
        raise ConfigError(f"{place}: is not valid YAML ({' '.join(str(error).split())})") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: holds a {type(value).__name__}, expected a mapping of keys")
    return value


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `key.path=value` texts to a nested mapping.

    Args:
        values: nested mapping; it is not changed.
        overrides: texts such as `optimizer.lr=6e-4`. Values are read as YAML, so `null`, `true`,
            `[1, 2]` and `{a: 1}` mean what they say.

    Returns:
        A new nested mapping.

    Raises:
        ConfigError: a text has no `=`, or its path runs through something that is no mapping.
    """
    result: dict[str, Any] = _copy_tree(dict(values))
    for text in overrides:
        path, separator, raw = text.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"{text!r}: is not an override, expected key.path=value")
        node = result
        for depth, key in enumerate(keys[:-1], 1):
            if node.get(key) is None:  # absent, or a section left empty
                node[key] = {}
            child = node[key]
            if not isinstance(child, dict):
                where = ".".join(keys[:depth])
                raise ConfigError(f"{text!r}: {where} is {child!r}, which has no keys inside")
            node = child
        try:
            node[keys[-1]] = yaml.load(raw, _Loader)
        except _YAML_FAULTS as error:
            raise ConfigError(f"{text!r}: the value is not valid YAML; put text in quotes") from error
    return result


def _copy_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy_tree(child) for key, child in value.items()}
    return [_copy_tree(child) for child in value] if isinstance(value, list) else value


def parse_config(cls: type[ConfigT], values: Mapping[str, Any], place: str) -> ConfigT:
    """Build a config from a nested mapping, or say what is wrong with it.

    Args:
        cls: the config class.
        values: nested mapping, perhaps with `format_version`.
        place: where the values come from, for messages.

    Raises:
        ConfigError: every wrong key and value, one a line, each with its path and the remedy.
    """
    values = dict(values)
    version = values.pop(VERSION_KEY, cls.format_version)
    if not isinstance(version, int) or version > cls.format_version:
        raise ConfigError(
            f"{place}: {VERSION_KEY} is {version!r}, but this Maskwright reads up to "
            f"{cls.format_version}; install a newer one"
        )
    if version < cls.format_version:
        values = cls.upgrade(values, version)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_explain(cls, issue) for issue in error.errors()]
        raise ConfigError(f"{place}: " + "\n".join(lines)) from error


def dump_config(config: Config) -> str:
    """A config as YAML, with its format version first; `parse_config` reads it back unchanged."""
    values = {VERSION_KEY: config.format_version, **config.model_dump(mode="json")}
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint for an unknown name: `; did you mean "x"?`, or the list of known names."""
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if match:
        return f'; did you mean "{match[0]}"?'
    return f"; known: {', '.join(sorted(known)) or 'none'}"


def _explain(cls: type[Config], issue: Any) -> str:
    path = ".".join(str(part) for part in issue["loc"]) or "(root)"
    if issue["type"] == "extra_forbidden":
        *parents, name = issue["loc"]
        return f'unknown key "{path}"{nearest_name(name, _known_keys(cls, parents))}'
    if issue["type"] == "missing":
        return f'"{path}" is missing; set it in the recipe or with {path}=...'
    if issue["type"] == "value_error":
        return f'"{path}": {issue["ctx"]["error"]}' if issue["loc"] else str(issue["ctx"]["error"])
    message = issue["msg"]
    if not message.startswith("Input should be "):
        return f'"{path}" is {issue["input"]!r}: {message}'
    return f'"{path}" is {issue["input"]!r}, expected {message[16:].removeprefix("a valid ")}'


def _known_keys(cls: type[BaseModel], parents: Sequence[Any]) -> list[str]:
    """Field names at a path inside a config class, for the hint after an unknown key."""
    candidates: list[type[BaseModel]] = [cls]
    for part in parents:
        found: list[type[BaseModel]] = []
        for model in candidates:
            if part in model.model_fields:
                found.extend(_models_in(model.model_fields[part].annotation))
        candidates = found or candidates
    return sorted({name for model in candidates for name in model.model_fields})


def _takes_bool(annotation: Any) -> bool:
    if annotation is Any or annotation is bool:
        return True
    return any(argument is bool or _takes_bool(argument) for argument in typing.get_args(annotation))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)
