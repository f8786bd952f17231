"""Training text that also stands in a test set, which makes the test look easier than it is."""

from __future__ import annotations

from ..amounts import UNKNOWN, count_of, exact
from ..markup import Html, Section, facts, join, missing, note, table, tag
from ..scale import grouped, share_text
from ..values import Object, items, mapping
from .inputs import DataInputs

__all__ = ["contamination_section"]

MAX_SETS = 50
KEY, TITLE = "contamination", "Test text in the data"


def contamination_section(inputs: DataInputs) -> Section:
    """How many documents shared text with which test sets."""
    if "contamination" not in inputs.audit:
        return Section(KEY, TITLE, missing("The account does not say whether test sets were looked for."))
    account = mapping(inputs.audit.get("contamination"))
    if not account:
        absent = missing("No test sets were compared with this data.")
        words = note(
            "If you will measure the model on a test set, name the set when preparing "
            "(corpus.contamination): text that stands in both makes the measured quality too good."
        )
        return Section(KEY, TITLE, join([absent, words]))
    ngram = count_of(account.get("ngram"))
    run = f"{grouped(ngram)} words in a row" if ngram else "a run of words"
    words = note(
        f"Documents that share {run} with a test set, which would make the test look easier than it is. "
        "A few are usual in text from the web. Worry when the share is large: a source may contain the "
        "test set."
    )
    rows: list[tuple[object, object]] = [
        ("Documents with test text", _found(inputs, account)),
        ("Shared run", run if ngram else None),
    ]
    return Section(KEY, TITLE, join([words, facts(rows), _sets(account)]))


def _found(inputs: DataInputs, account: Object) -> object:
    count, read = count_of(account.get("documents")), count_of(inputs.audit.get("documents_read"))
    if count is None:
        return UNKNOWN
    kept = ", flagged and kept" if account.get("action") == "flag" else ""
    share = [" ", tag("small", f"{share_text(count / read)} of those read{kept}")] if read else []
    return join([exact(count, grouped, "documents"), *share])


def _sets(account: Object) -> Html:
    """The test sets, with how many of their texts could be looked for."""
    counts = mapping(account.get("counts"))
    named = [str(name) for name in items(account.get("evaluation"))] or [str(name) for name in counts]
    if not named:
        return Html("")
    rows = []
    for name in named[:MAX_SETS]:
        row = mapping(counts.get(name))
        cells = [exact(count_of(row.get(key)), grouped, "texts") for key in ("used", "ignored")]
        rows.append([tag("span", name, title=name), *cells])
    headings = ["Test set", "Texts looked for", "Too short to tell"]
    return table(headings, rows, caption="Test sets", class_="numbers plain")
