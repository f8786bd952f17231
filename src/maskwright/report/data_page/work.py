"""How the data was made: time by stage, the files it was made from, and how to make it again."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ..amounts import UNKNOWN, count_of, documents, exact, ranked, text_bytes
from ..bars import bars
from ..markup import Html, Section, code, details, facts, join, missing, note, table, tag
from ..reproduce import yaml_text
from ..scale import NBSP, bytes_text, compact, duration, grouped, significant
from ..values import Object, items, mapping
from .headline import total_seconds
from .inputs import DataInputs

__all__ = ["again_section", "inputs_section", "speed_section"]

MAX_STAGES = 40
LEAST_SECONDS = 0.1
MAX_INPUTS = 200
MAX_LABEL_CHARACTERS = 56
STAGES = {
    "count": "counts the lines of large files, so that each span knows where it starts",
    "contamination": "reads the test sets to compare with",
    "clean": "reads, normalises, applies the rules, names the language",
    "exact": "finds equal documents over all files",
    "bands": "brings documents together that may be near copies",
    "clusters": "joins near copies to groups and chooses which one stays",
    "lines": "finds lines that stand in the data already",
    "sample": "chooses text to train the tokenizer on",
    "tokenizer": "trains or loads the vocabulary",
    "encode": "turns text into tokens and writes shards",
    "finish": "adds up the account and publishes the folder",
}


def speed_section(inputs: DataInputs) -> Section:
    """Time and rate of each stage."""
    key, title = "speed", "Time by stage"
    found = [mapping(stage) for stage in items(inputs.timings.get("stages"))]
    # A stage without tasks had nothing to do.
    stages = [stage for stage in found if count_of(stage.get("tasks")) != 0][:MAX_STAGES]
    total = total_seconds(inputs)
    if not stages or total is None:
        return Section(key, title, missing("No stage was timed, or timings.json is missing."))
    times = [(str(stage.get("name", "?")), count_of(stage.get("seconds"))) for stage in stages]
    chart = bars(
        [(name, seconds) for name, seconds in times if seconds is not None],
        caption="Seconds by stage",
        whole=total,
        write=lambda seconds: exact(seconds, _clock, "seconds"),
    )
    words = note(
        "How long each stage took by the clock, and how much text went through it in a second (MB: a "
        "million bytes of text). The longest bar is the one to look at when preparing is too slow; "
        "worry when a stage gets no faster with more workers, as the disk may be what holds it back. "
        "Where an earlier start did a part of a stage, its rates are not known."
    )
    headings = ["Stage", "Time", "Tasks", "Text", "MB/s", "Documents/s"]
    rows = [_stage(stage) for stage in stages]
    shown = table(headings, rows, caption="Stages", class_="numbers plain")
    return Section(key, title, join([words, chart, shown, _machine(inputs)]))


def _stage(stage: Object) -> list[object]:
    name, seconds = str(stage.get("name", "?")), count_of(stage.get("seconds"))
    tasks, done = count_of(stage.get("tasks")), count_of(stage.get("executed"))
    meaning = STAGES.get(name)
    # Where an earlier start did a part, the seconds belong to fewer tasks than the amounts.
    whole = done is None or done == tasks
    size, rows = count_of(stage.get("bytes")), count_of(stage.get("documents"))
    now = [] if whole else [tag("small", f"{grouped(done or 0)} by this start")]
    return [
        join([name, *([tag("small", meaning)] if meaning else [])]),
        exact(seconds, _clock, "seconds"),
        join([exact(tasks, grouped, "tasks"), *now]),
        text_bytes(size) if size else UNKNOWN,
        _rate(size if whole else None, seconds, 1e6, "bytes a second"),
        _rate(rows if whole else None, seconds, 1.0, "documents a second"),
    ]


def _rate(amount: float | None, seconds: float | None, unit: float, name: str) -> Html:
    if not amount or not seconds or seconds < LEAST_SECONDS:
        return tag("span", UNKNOWN)
    rate = amount / seconds
    return tag("span", compact(rate) if unit == 1 else significant(rate / unit), title=f"{rate:,.6g} {name}")


def _clock(seconds: float) -> str:
    """A time, of which the first tenth of a second says nothing."""
    return f"<{NBSP}{LEAST_SECONDS}{NBSP}s" if seconds < LEAST_SECONDS else duration(seconds)


def _machine(inputs: DataInputs) -> Html:
    machine = inputs.timings.get("machine")
    known = mapping(machine)
    cores, memory = count_of(known.get("cores")), count_of(known.get("memory_bytes"))
    workers, runner = count_of(inputs.timings.get("workers")), inputs.timings.get("runner")
    text = machine if isinstance(machine, str) and machine else known.get("cpu")
    return facts(
        [
            ("Workers", grouped(workers) if workers is not None else None),
            ("Runner", runner if isinstance(runner, str) and runner else None),
            ("Machine", text),
            ("Cores", grouped(cores) if cores is not None else None),
            ("Memory", bytes_text(memory) if memory is not None else None),
        ]
    )


def inputs_section(inputs: DataInputs) -> Section:
    """The files that were read."""
    key, title = "inputs", "Files read"
    found = [mapping(entry) for entry in items(inputs.audit.get("inputs"))]
    if not found:
        return Section(key, title, missing("The account names no files."))
    shown = found[:MAX_INPUTS]
    total = count_of(inputs.audit.get("num_inputs")) or float(len(found))
    words = note(
        "The files as they were found, with their size as stored, in the order in which they were read."
        " Worry when a file is missing, or when one is much smaller than its neighbours: it may be cut "
        "off."
    )
    formats: dict[str, object] = {}
    for entry in found:
        name = str(entry.get("format", "?"))
        formats[name] = (count_of(formats.get(name)) or 0.0) + 1
    many = ", ".join(f"{grouped(count)} {name}" for name, count in ranked(formats))
    first = f"the first {grouped(len(shown))} of {grouped(total)}" if total > len(shown) else "all"
    headings = ["File", "Source", "Format", "Size"]
    counted = any("documents" in entry for entry in shown)
    headings += ["Documents"] if counted else []
    rows = [_file(entry)[: len(headings)] for entry in shown]
    files = table(headings, rows, caption="Files read", class_="numbers plain")
    named = "Formats" if total <= len(found) else "Formats of those named"
    body = [words, facts([("Files", grouped(total)), (named, many)]), details(f"Files read: {first}", files)]
    return Section(key, title, join(body))


def _file(entry: Object) -> Sequence[object]:
    label = str(entry.get("label", "?"))
    return [
        tag("span", _middle(label), title=label, dir="auto"),
        str(entry.get("source", UNKNOWN)),
        str(entry.get("format", UNKNOWN)),
        text_bytes(count_of(entry.get("bytes"))),
        documents(count_of(entry.get("documents"))),
    ]


def _middle(text: str) -> str:
    """A long name without its middle: both ends of a path say more than that."""
    if len(text) <= MAX_LABEL_CHARACTERS:
        return text
    half = (MAX_LABEL_CHARACTERS - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def again_section(inputs: DataInputs) -> Section:
    """The settings as a recipe, and the command that takes it."""
    key, title = "again", "Make it again"
    command = tag("pre", "maskwright prepare again.yaml --output again", tabindex="0", class_="command")
    if inputs.config is None:
        words = note("The settings of this folder are not there, so it cannot be made again from this page.")
        return Section(key, title, words)
    recipe = "prepare:\n" + textwrap.indent(inputs.config, "  ")
    words = note(
        "Save the recipe below as ",
        code("again.yaml"),
        ". The same files then give the same bytes, with any number of workers and any runner; the name of "
        "the data under Tokens will be the same.",
    )
    return Section(key, title, join([words, command, details("again.yaml", yaml_text(recipe))]))
