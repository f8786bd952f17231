"""What was left out and why, with samples, and what was mended."""

from __future__ import annotations

from ..amounts import count_of, documents, ranked, reason_name, repairs_text, samples
from ..bars import bars
from ..markup import Html, Section, details, facts, join, missing, note, part, table, tag
from ..scale import grouped, share_text
from ..values import mapping
from .inputs import DataInputs
from .reasons import explain
from .sources import read_sources

__all__ = ["drops_section"]

MAX_BAD_FILES = 20
MAX_REASON_COLUMNS = 8


def drops_section(inputs: DataInputs) -> Section:
    """Documents left out by reason, from which source, and damaged records."""
    key, title = "drops", "What was left out"
    if not isinstance(inputs.audit.get("drops"), dict):
        return Section(key, title, missing("The account does not say what was left out."))
    parts = [
        ("reasons", "By reason", _reasons(inputs)),
        ("reasons-by-source", "By source", _by_source(inputs)),
        ("damage", "Damaged input", _damage(inputs)),
    ]
    shown = [(key_, title_, content) for key_, title_, content in parts if content]
    body = [part(key_, title_, content) for key_, title_, content in shown]
    return Section(key, title, join(body), [(key_, title_) for key_, title_, _ in shown])


def _reasons(inputs: DataInputs) -> Html:
    rows = [(name, count) for name, count in ranked(mapping(inputs.audit.get("drops"))) if count]
    if not rows:
        return note("Nothing was left out: every document that was read is in the data.")
    read = count_of(inputs.audit.get("documents_read"))
    words = note(
        "Documents that are not in the data, by the first rule that dropped them, and their share of "
        "all that were read. Open a reason to see some of them. Worry when the samples look like text "
        "you wanted."
    )
    chart = bars(
        [(reason_name(name), count) for name, count in rows],
        caption="Documents left out, by reason, and their share of all",
        whole=read,
        write=documents,
        colour="b",
    )
    texts = mapping(inputs.audit.get("drop_samples"))
    return join([words, chart, *(_samples(name, count, texts.get(name)) for name, count in rows)])


def _samples(name: str, count: float, texts: object) -> Html:
    summary = join([tag("b", reason_name(name)), f" · {grouped(count)}"])
    meaning = explain(name)
    return samples(summary, texts, *([note(meaning)] if meaning else []))


def _by_source(inputs: DataInputs) -> Html:
    sources = [source for source in read_sources(inputs) if source.drops and source.count("documents_read")]
    if len(sources) < 2:
        return Html("")
    reasons = [name for name, count in ranked(mapping(inputs.audit.get("drops"))) if count]
    reasons = reasons[:MAX_REASON_COLUMNS]
    rows = []
    for source in sources:
        read = source.count("documents_read") or 1.0
        cells = [_share(source.drops.get(reason, 0.0), read) for reason in reasons]
        rows.append([tag("span", source.name, title=source.name), *cells])
    words = note(
        "The share of each source's documents that each reason took. Worry when one source loses far "
        "more than the others: a rule may be wrong for its kind of text or its language."
    )
    headings = ["Source", *map(reason_name, reasons)]
    return join([words, table(headings, rows, caption="Drops by source", class_="numbers plain wrapped")])


def _share(count: float, read: float) -> Html:
    if not count:
        return tag("span", "·", class_="nothing", title="0 documents")
    class_ = "heed" if count / read > 0.5 else None
    return tag("span", share_text(count / read), title=f"{grouped(count)} documents", class_=class_)


def _damage(inputs: DataInputs) -> Html:
    repairs = repairs_text(mapping(inputs.audit.get("repairs")))
    files = [(name, count) for name, count in ranked(mapping(inputs.audit.get("bad_lines"))) if count]
    if repairs is None and not files:
        return note("No damaged record was met: every line and every byte could be read as it is.")
    words = note(
        "Records that could not be read as they are. A few are usual in text from the web; many mean that a "
        "file is cut off, has another format, or another encoding than UTF-8."
    )
    bad = sum(count for _, count in files)
    rows = [
        ("Mended and kept", repairs),
        ("Malformed lines left out", f"{grouped(bad)} in {grouped(len(files))} files" if files else None),
    ]
    shown: list[object] = [words, facts(rows)]
    if files:
        caption = "Malformed lines by file"
        shown.append(details(caption, bars(files[:MAX_BAD_FILES], caption=caption, colour="b")))
    return join(shown)
