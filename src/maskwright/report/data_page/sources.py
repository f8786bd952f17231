"""Where the text came from and where it went: a flow chart and a table, by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..amounts import UNKNOWN, count_of, documents, exact, meter, ranked, text_bytes, tokens
from ..flow import Node, flow_chart
from ..markup import Html, Section, join, missing, note, part, table, tag
from ..scale import grouped, share_text, significant
from ..values import Object, mapping
from .inputs import DataInputs
from .reasons import UNREADABLE

__all__ = ["Source", "read_sources", "sources_section"]

MAX_ENDS = 7
MAX_ROWS = 100
OTHERS = "other sources"
KEPT = "kept"
# Outcomes in the order shown, with their colour. A reason that is not named here is a rule's.
OUTCOMES = (
    (KEPT, "a"),
    ("exact copies", "e"),
    ("near copies", "f"),
    ("test text", "d"),
    ("other languages", "c"),
    ("left out by rules", "b"),
    ("no readable text", "quiet"),
)
OUTCOME_OF = {
    "exact_duplicate": "exact copies",
    "near_duplicate": "near copies",
    "contaminated": "test text",
    "other_language": "other languages",
    "uncertain_language": "other languages",
    **dict.fromkeys(UNREADABLE, "no readable text"),
}


@dataclass(frozen=True)
class Source:
    """The account of one source; None where it does not say.

    Args:
        name: its name.
        account: its part of `audit.json`.
    """

    name: str
    account: Object

    def count(self, key: str) -> float | None:
        """One of its counts."""
        return count_of(self.account.get(key))

    @cached_property
    def drops(self) -> dict[str, float]:
        """Documents left out, by reason."""
        return dict(ranked(mapping(self.account.get("drops"))))

    @property
    def repeats(self) -> float:
        """How often an epoch takes each of its documents; once where nothing is said."""
        found = self.count("repeats")
        return 1.0 if found is None else found

    @property
    def tokens_of_epoch(self) -> float | None:
        """How many tokens an epoch takes from it."""
        found = self.count("tokens")
        return None if found is None else found * self.repeats


def read_sources(inputs: DataInputs) -> list[Source]:
    """The sources, the one with most documents first."""
    found = [Source(name, account) for name, account in inputs.sources.items()]
    return sorted(found, key=lambda source: (-(source.count("documents_read") or 0), source.name))


def sources_section(inputs: DataInputs) -> Section:
    """Documents, text and tokens of each source, in and out."""
    key, title = "sources", "From source to token"
    sources = read_sources(inputs)
    if not sources:
        return Section(key, title, missing("The account names no sources."))
    parts = [("by-source", "Amounts by source", _table(sources))]
    chart = _chart(sources)
    if chart:
        parts.insert(0, ("flow", "What became of the documents", chart))
    body = [part(key_, title_, content) for key_, title_, content in parts]
    return Section(key, title, join(body), [(key_, title_) for key_, title_, _ in parts])


def outcome(reason: str) -> str:
    """Which of the outcomes on the chart a reason belongs to."""
    return OUTCOME_OF.get(reason, "left out by rules")


def _outcomes(source: Source) -> Counter[str]:
    found: Counter[str] = Counter()
    kept = source.count("documents")
    found[KEPT] += round(kept or 0)
    for reason, count in source.drops.items():
        found[outcome(reason)] += round(count)
    return found


def _chart(sources: Sequence[Source]) -> Html:
    known = [source for source in sources if source.count("documents") is not None]
    shown = known if len(known) <= MAX_ENDS else known[: MAX_ENDS - 1]
    rows = [(source.name, _outcomes(source)) for source in shown]
    rest = sum(map(_outcomes, known[len(shown) :]), Counter[str]())
    rows += [(f"{len(known) - len(shown)} {OTHERS}", rest)] if rest else []
    rows = [(name, counts) for name, counts in rows if counts.total()]
    total = sum((counts for _, counts in rows), Counter[str]())
    whole = total.total()
    ends = [(name, colour) for name, colour in OUTCOMES if total[name]]
    lefts = [Node(name, tag("small", grouped(counts.total()))) for name, counts in rows]
    rights = [
        Node(name, tag("small", f"{grouped(total[name])} ({share_text(total[name] / whole)})"), colour)
        for name, colour in ends
    ]
    amounts = [[float(counts[name]) for name, _ in ends] for _, counts in rows]
    chart = flow_chart("Documents from each source to what became of them", lefts, rights, amounts, grouped)
    if not chart:
        return chart
    words = note(
        "Each ribbon is a number of documents: sources on the left, what became of them on the right. "
        "Worry when a ribbon that leaves the data is as broad as the one that stays and you do not know why."
    )
    return join([words, chart])


def _table(sources: Sequence[Source]) -> Html:
    parts = [source.tokens_of_epoch for source in sources]
    epoch = sum(count for count in parts if count is not None)
    rows = [_row(source, epoch) for source in sources[:MAX_ROWS]]
    headings = ["Source", "Documents in", "Documents out", "Text in", "Text out", "Tokens", "Repeats"]
    headings.append("Share of an epoch")
    words = note(
        "What each source gave, and how much of an epoch (one pass over the data) it fills. “Repeats” is how "
        "often an epoch takes each document. Worry when one source fills nearly all of it, or when a small "
        "one is repeated more than four times: the model then learns it by heart."
    )
    more = len(sources) - len(rows)
    tail = [note(f"{grouped(more)} smaller sources are not shown; audit.json has them.")] if more else []
    shown = table(headings, rows, caption="Amounts by source", class_="numbers plain wrapped")
    return join([words, shown, *tail])


def _row(source: Source, epoch: float) -> list[object]:
    text_in, text_out = source.count("bytes_read"), source.count("bytes")
    read, kept = source.count("documents_read"), source.count("documents")
    part_of_epoch = source.tokens_of_epoch
    repeats = source.count("repeats")
    return [
        tag("span", source.name, title=source.name),
        documents(read),
        _out(kept, read, documents(kept)),
        text_bytes(text_in),
        _out(text_out, text_in, text_bytes(text_out)),
        tokens(source.count("tokens")),
        UNKNOWN if repeats is None else exact(repeats, lambda value: f"{significant(value)} ×", "passes"),
        UNKNOWN if part_of_epoch is None or not epoch else _part(part_of_epoch / epoch),
    ]


def _out(part_: float | None, whole: float | None, written: Html) -> Html:
    share = [tag("small", share_text(part_ / whole))] if part_ is not None and whole else []
    return join([written, *share])


def _part(share: float) -> Html:
    return join([meter(share), tag("span", share_text(share), class_="value")])
