"""Put a table of every setting into the page that asks for it, from the config classes themselves.

A line `<!-- settings: pretrain -->` becomes a table with a row for each field: name, what it takes,
default, meaning. Large parts of a section get a heading and a table of their own (`PARTS`). A test
looks that no field is missing.
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
# Parts of a section with a table of their own, in the order of the page.
PARTS = {
    "prepare": {
        "corpus.sources[].": "Sources",
        "corpus.rules.": "Rules",
        "corpus.deduplication.": "Deduplication",
        "corpus.contamination.": "Decontamination",
    }
}
# Sections that hold the same settings as another one, which are told there only.
SAME = {"corpus.sources[].rules": "corpus.rules"}
_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "not empty"}
_MAX_NAMES = 12
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
    """The Markdown tables of one section."""
    parts = PARTS.get(section, {})
    tables: dict[str, list[str]] = {prefix: [] for prefix in ("", *parts)}
    for name, field, default in fields_of(config_classes()[section]):
        prefix = next((prefix for prefix in parts if f"{name}.".startswith(prefix)), "")
        tables[prefix].append(row(name, field, default))
    head = ["| setting | takes | default | meaning |", "|---|---|---|---|"]
    headings = {prefix: [f"### {title}", ""] for prefix, title in parts.items()}
    return "\n\n".join("\n".join([*headings.get(prefix, []), *head, *rows]) for prefix, rows in tables.items())


def row(name: str, field: FieldInfo, default: Any) -> str:
    """The line of one field, or of a section that may be left out."""
    meaning = (field.description or "").translate(_ESCAPES)
    shown = name.replace(".", ".<wbr>")  # lines may break after a dot, and nowhere else
    if name in SAME:
        expected = f"as `{SAME[name]}`, null"
    elif default is None and model_inside(field.annotation)[0] is not None:
        expected = "section, null"
    else:
        expected = takes(field).translate(_ESCAPES)
    return f"| <code>{shown}</code> | {expected} | {default_text(default)} | {meaning} |"


def fields_of(
    model: type[BaseModel], outer: BaseModel | None = None, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Dotted name, field and default of all settings; `outer` is the default that the outer config sets.

    A section that may be left out (`null`) comes before its settings.
    """
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if outer is None else getattr(outer, name)
        inner, many = model_inside(field.annotation)
        if inner is None or prefix + name + ("[]" if many else "") in SAME:
            yield prefix + name, field, default
        else:
            if default is None:
                yield prefix + name, field, default
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
        if len(arguments) > _MAX_NAMES:
            return "one of the names below"
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(dict.fromkeys(_words(argument) for argument in arguments))
    if origin in (tuple, list):
        return f"list of {_words(arguments[0])}".replace("list of one of the", "list of")
    if origin is dict:
        return f"mapping of {_words(arguments[0])} to {_words(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))
