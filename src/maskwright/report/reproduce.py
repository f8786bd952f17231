"""The last two sections: the resolved configs, and what is needed to do the same again."""

from __future__ import annotations

import re

from .inputs import Inputs
from .markup import Html, Section, code, details, facts, join, missing, note, tag
from .scale import bytes_text, grouped
from .values import items, mapping, number

__all__ = ["configuration_section", "reproduce_section", "yaml_text"]

_YAML_KEY = re.compile(r"^([ \t-]*)([^\s:#][^:#]*)(:)(?=\s|$)", re.MULTILINE)


def configuration_section(inputs: Inputs) -> Section:
    """Every setting as it was resolved from recipe and overrides."""
    found = [("Pretraining", inputs.config)]
    found += [(f"Fine-tuning: {run.name}", run.config) for run in inputs.finetuned]
    body = [details(name, yaml_text(text)) for name, text in found if text]
    if not body:
        body = [missing("No config.yaml was found", "maskwright pretrain")]
    return Section("configuration", "Configuration", join(body))


def yaml_text(text: str) -> Html:
    """YAML with its keys set apart from its values."""
    parts: list[object] = []
    end = 0
    for match in _YAML_KEY.finditer(text):
        parts += [text[end : match.start(2)], tag("span", match[2], class_="key")]
        end = match.end(2)
    return tag("pre", join([*parts, text[end:]]), tabindex="0")


def reproduce_section(inputs: Inputs, command: str | None) -> Section:
    """The command, the data by fingerprint, the versions and the machine."""
    body: list[object] = []
    if command:
        body += [
            note("The same command on the same data:"),
            tag("pre", command, tabindex="0", class_="command"),
        ]
    else:
        body.append(note("Run the commands again with the configuration above."))
    manifest, machine = inputs.manifest, mapping(inputs.summary.get("machine"))
    tokenizer = mapping(manifest.get("tokenizer"))
    cores, memory = number(machine.get("cores")), number(machine.get("memory_bytes"))
    gpus = [str(mapping(gpu).get("name", gpu)) for gpu in items(machine.get("gpus"))]
    flags = [name for name, present in mapping(machine.get("flags")).items() if present is True]
    versions = mapping(inputs.summary.get("versions"))
    precision = inputs.summary.get("precision")
    rows: list[tuple[object, object]] = [
        ("Data fingerprint", _code(manifest.get("fingerprint"))),
        ("Tokenizer fingerprint", _code(tokenizer.get("fingerprint"))),
        ("Processor", machine.get("cpu")),
        ("Cores", grouped(cores) if cores is not None else None),
        ("Memory", bytes_text(memory) if memory is not None else None),
        ("GPUs", ", ".join(gpus) or "none" if machine else None),
        ("Instruction sets", ", ".join(flags) or None),
        ("System", machine.get("platform")),
        ("Precision", precision),
        *((name, _code(version)) for name, version in versions.items()),
    ]
    body.append(facts(rows))
    if not machine and not versions:
        reason = inputs.summary_problem or "summary.json names no machine and no versions"
        body.append(missing(reason, "maskwright pretrain"))
    return Section("reproduce", "Reproduce", join(body))


def _code(value: object) -> Html | None:
    return code(value) if value is not None else None
