"""Put a table of every setting into the page that asks for it, from the config classes themselves.

A line `<!-- settings: pretrain -->` becomes a table with a row for each field: name, what it takes,
default, meaning. A test looks that no field is missing.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

MARK = re.compile(r"<!-- settings: (\w+) -->")
_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "not empty"}
_ESCAPES = str.maketrans({"|": "\\|", "*": "\\*", "<": "&lt;"})


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for each page."""
    return MARK.sub(lambda match: settings_table(match[1]), markdown)


def config_classes() -> dict[str, type[BaseModel]]:
    """The config of each section of a recipe."""
    from maskwright.jobs.evaluate import EvaluateConfig
    from maskwright.jobs.prepare import PrepareConfig
    from maskwright.tasks.classification.finetune import FinetuneConfig
    from maskwright.training.pretrain_config import PretrainConfig

    return {
        "prepare": PrepareConfig,
        "pretrain": PretrainConfig,
        "finetune": FinetuneConfig,
        "evaluate": EvaluateConfig,
    }


def settings_table(section: str) -> str:
    """The Markdown table of one section."""
    lines = ["| setting | takes | default | meaning |", "|---|---|---|---|"]
    for name, field, default in fields_of(config_classes()[section]):
        meaning = (field.description or "").translate(_ESCAPES)
        shown = name.replace(".", ".<wbr>")  # lines may break after a dot, and nowhere else
        lines.append(f"| <code>{shown}</code> | {takes(field).translate(_ESCAPES)} | {default_text(default)} | {meaning} |")
    return "\n".join(lines)


def fields_of(
    model: type[BaseModel], outer: BaseModel | None = None, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Dotted name, field and default of all settings; `outer` is the default that the outer config sets."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if outer is None else getattr(outer, name)
        inner, many = model_inside(field.annotation)
        if inner is None:
            yield prefix + name, field, default
        else:
            known = default if isinstance(default, inner) else None
            yield from fields_of(inner, known, f"{prefix}{name}{'[]' if many else ''}.")


def model_inside(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The config class that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in typing.get_args(annotation):
        found, _ = model_inside(argument)
        if found is not None:
            return found, typing.get_origin(annotation) in (tuple, list)
    return None, False


def takes(field: FieldInfo) -> str:
    """What a field takes, in words."""
    limits = []
    for item in field.metadata:
        for key, words in _LIMITS.items():
            value = getattr(item, key, None)
            if value is not None:
                limits.append(words.format(value))
    return ", ".join([_words(field.annotation), *limits])


def default_text(value: Any) -> str:
    """A default as YAML would say it, or that there is none."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return "empty" if value == "" else f"`{value}`"


def _words(annotation: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(dict.fromkeys(_words(argument) for argument in arguments))
    if origin in (tuple, list):
        return f"list of {_words(arguments[0])}"
    return getattr(annotation, "__name__", str(annotation))
