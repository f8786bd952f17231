"""The top of the data report: a sentence, the main numbers, and what to look at first."""

from __future__ import annotations

from collections.abc import Callable

from ..amounts import count_of, documents, exact, text_bytes, tokens
from ..markup import Html, code, join, missing, note, tag, tile_list
from ..scale import compact, duration, grouped, percent, significant
from ..values import items, mapping
from .inputs import DataInputs

__all__ = ["all_tokens", "lede", "problems", "tiles", "total_seconds", "warnings"]

Tile = tuple[str, object, str]


def all_tokens(inputs: DataInputs) -> float | None:
    """Tokens of all splits, as the account says or else the manifest; None where neither does."""
    stated = count_of(inputs.audit.get("num_tokens"))
    if stated is not None:
        return stated
    splits = [mapping(split) for split in mapping(inputs.manifest.get("splits")).values()]
    found = [count_of(split.get("num_tokens")) for split in splits]
    known = [count for count in found if count is not None]
    return sum(known) if known else None


def total_seconds(inputs: DataInputs) -> float | None:
    """Seconds of all stages together; None where no stage was timed."""
    found = [count_of(mapping(stage).get("seconds")) for stage in items(inputs.timings.get("stages"))]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if known else None


def lede(inputs: DataInputs) -> Html:
    """What this data is, in a sentence; empty when nothing is known."""
    read, kept = (count_of(inputs.audit.get(f"documents_{key}")) for key in ("read", "kept"))
    if kept is None or not read:
        return Html("")
    names = list(inputs.sources)
    where = f" from {grouped(len(names))} source{'s' if len(names) != 1 else ''}" if names else ""
    text = (
        f"{compact(read)} documents{where} came in; {compact(kept)} of them ({percent(kept / read)}) stayed"
    )
    count = all_tokens(inputs)
    text += f" and became {compact(count)} tokens to train on" if count is not None else ""
    return tag("p", text + ".", class_="lede")


def tiles(inputs: DataInputs) -> Html:
    """The main numbers; those that are not known are left out."""
    read, kept = (count_of(inputs.audit.get(f"documents_{key}")) for key in ("read", "kept"))
    text_in, text_out = (count_of(inputs.audit.get(f"bytes_{key}")) for key in ("read", "kept"))
    per_token, seconds = count_of(inputs.audit.get("bytes_per_token")), total_seconds(inputs)
    vocabulary = count_of(mapping(inputs.manifest.get("tokenizer")).get("vocab_size"))
    workers, num_inputs = count_of(inputs.timings.get("workers")), count_of(inputs.audit.get("num_inputs"))
    count = all_tokens(inputs)
    return tile_list(
        [
            _tile("Documents in", read, documents, f"from {_many(num_inputs, 'file')}" if num_inputs else ""),
            _tile("Documents out", kept, documents, _share(kept, read, "of the documents in")),
            _tile("Text in", text_in, text_bytes, "UTF-8, after decompressing"),
            _tile("Text out", text_out, text_bytes, _share(text_out, text_in, "of the text in")),
            _tile("Tokens", count, tokens, f"vocabulary of {grouped(vocabulary)}" if vocabulary else ""),
            _tile("Bytes per token", per_token or None, _per_token, "English: 3.5 to 5"),
            _per_document(count, kept),
            _tile("Time taken", seconds, _seconds, _pace(text_in, seconds, workers)),
        ]
    )


def _tile(name: str, value: float | None, write: Callable[[float], Html], beside: str) -> Tile | None:
    return (name, write(value), beside) if value is not None else None


def _share(part: float | None, whole: float | None, words: str) -> str:
    return f"{percent(part / whole)} {words}" if part is not None and whole else ""


def _many(count: float, name: str) -> str:
    return f"{grouped(count)} {name}{'s' if count != 1 else ''}"


def _per_document(count: float | None, kept: float | None) -> Tile | None:
    return ("Tokens per document", compact(round(count / kept)), "on average") if count and kept else None


def _per_token(value: float) -> Html:
    return exact(value, significant, "bytes per token")


def _seconds(value: float) -> Html:
    return exact(value, duration, "seconds")


def _pace(text: float | None, seconds: float | None, workers: float | None) -> str:
    pace = f"{significant(text / seconds / 1e6)} MB/s of text in" if text and seconds else ""
    return ", ".join(filter(None, (pace, _many(workers, "worker") if workers else "")))


def warnings(inputs: DataInputs) -> Html:
    """What stands out, in plain words; says so too when nothing does or nobody looked."""
    found = inputs.audit.get("warnings")
    if not isinstance(found, list):
        return missing("The account holds no list of warnings, so nobody has looked for any.")
    if not found:
        return tag(
            "div",
            tag("strong", "No warnings."),
            " Sources, repetition, damaged files, rules, languages and tokens were looked at.",
            class_="verdict-box fine",
        )
    count = len(found)
    heading = f"{grouped(count)} thing{'s' if count != 1 else ''} to look at before training"
    entries = [tag("li", text, dir="auto") for text in found]
    return tag(
        "div", tag("strong", heading), tag("ul", *entries, class_="warnings"), class_="verdict-box heed"
    )


def problems(inputs: DataInputs) -> Html:
    """Which files are missing or damaged."""
    if not inputs.problems:
        return Html("")
    lines = [missing(f"{text}.") for text in inputs.problems]
    remedy = "What depends on that is left out below. "
    return join([*lines, note(remedy, code("maskwright prepare --resume"), " finishes a folder.")])
