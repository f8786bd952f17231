"""The section on the data: what came in, what was left out and why, how long documents are."""

from __future__ import annotations

from .amounts import (
    documents,
    kept_of,
    length_figure,
    ranked,
    reason_name,
    repairs_text,
    samples,
    splits_table,
    text_bytes,
)
from .bars import bars
from .inputs import Inputs
from .markup import Html, Section, facts, figure_grid, figure_heading, join, missing, note, part, tag
from .scale import grouped, percent, significant
from .values import Object, items, mapping, number

__all__ = ["data_section", "tokens_in_split"]

MAX_SOURCES = 12


def data_section(inputs: Inputs) -> Section:
    """What the model was fed."""
    audit, manifest = inputs.audit, inputs.manifest
    problems = dict.fromkeys((inputs.audit_problem, inputs.manifest_problem))
    body = [missing(text, "maskwright prepare") for text in problems if text]
    parts: list[tuple[str, str, Html]] = []
    if audit or manifest:
        parts.append(("documents", "Documents and tokens", _counts(audit, manifest)))
    if items(audit.get("warnings")):
        parts.append(("warnings", "Warnings", _warnings(items(audit.get("warnings")))))
    if mapping(audit.get("drops")):
        parts.append(("drops", "What was left out", _drops(audit)))
    figures = [figure for figure in (_sources(audit), length_figure(audit)) if figure]
    if figures:
        parts.append(("sources", "Sources and lengths", figure_grid(*figures)))
    body += [part(key, title, content) for key, title, content in parts]
    return Section("data", "Data", join(body), [(key, title) for key, title, _ in parts])


def tokens_in_split(manifest: Object, name: str) -> float | None:
    """How many tokens a split has, or None where the manifest does not say."""
    return number(mapping(mapping(manifest.get("splits")).get(name)).get("num_tokens"))


def _counts(audit: Object, manifest: Object) -> Html:
    read, kept = number(audit.get("documents_read")), number(audit.get("documents_kept"))
    per_token = number(audit.get("bytes_per_token"))
    longest = number(audit.get("longest_document_characters"))
    vocabulary = number(mapping(manifest.get("tokenizer")).get("vocab_size"))
    text = number(audit.get("bytes_read")), number(audit.get("bytes_kept"))
    rows: list[tuple[object, object]] = [
        ("Documents kept", kept_of(read, kept)),
        ("Text kept", kept_of(*text, text_bytes)),
        ("Bytes per token", significant(per_token) if per_token is not None else None),
        ("Vocabulary", f"{grouped(vocabulary)} tokens" if vocabulary is not None else None),
        ("Longest document", f"{grouped(longest)} characters" if longest is not None else None),
        ("Mended and kept", repairs_text(mapping(audit.get("repairs")))),
    ]
    return join([facts(rows), splits_table(mapping(manifest.get("splits")))])


def _warnings(texts: list[object]) -> Html:
    words = note("What stands out in this data; the data report beside the shards says more.")
    return join([words, tag("ul", *(tag("li", text, dir="auto") for text in texts), class_="warnings")])


def _drops(audit: Object) -> Html:
    rows = ranked(mapping(audit.get("drops")))
    shown = [(reason_name(name), count) for name, count in rows]
    read = number(audit.get("documents_read"))
    chart = bars(
        shown,
        caption="Documents left out, by reason, and their share of all",
        whole=read,
        write=documents,
        colour="b",
    )
    texts = mapping(audit.get("drop_samples"))
    return join([chart, *(samples(f"Samples: {reason_name(name)}", texts.get(name)) for name, _ in rows)])


def _sources(audit: Object) -> Html:
    counts = {
        name: mapping(source).get("documents") for name, source in mapping(audit.get("sources")).items()
    }
    rows = ranked(counts)
    if not rows:
        return Html("")
    total = sum(count for _, count in rows) or 1
    shown, rest = rows[:MAX_SOURCES], rows[MAX_SOURCES:]
    chart = bars(shown, caption="Documents by source", whole=total, write=documents)
    more = sum(count for _, count in rest)
    words = note(f"{len(rest)} more sources have {grouped(more)} documents ({percent(more / total)}).")
    return tag("figure", figure_heading("Sources", "documents"), chart, words if rest else "")
