"""What the text became: tokens, how well the vocabulary fits each language, and the shards."""

from __future__ import annotations

from ..amounts import UNKNOWN, count_of, exact, meter, splits_table, tokens
from ..markup import Html, Section, code, facts, join, missing, note, part, table, tag
from ..scale import grouped, share_text, significant
from ..values import Object, mapping, number
from .headline import all_tokens
from .inputs import DataInputs
from .language_names import language_name

__all__ = ["tokens_section"]

MAX_LANGUAGES = 60
HIGH_UNKNOWN_SHARE = 0.01
HIGH_SINGLE_BYTE_SHARE = 0.30


def tokens_section(inputs: DataInputs) -> Section:
    """The fit of the tokenizer, the splits and the shards."""
    parts = [
        ("fit", "How the vocabulary fits", _fit(inputs)),
        ("shards", "Splits and shards", _shards(inputs)),
    ]
    body = [part(key, title, content) for key, title, content in parts]
    return Section("tokens", "Tokens", join(body), [(key, title) for key, title, _ in parts])


def _fit(inputs: DataInputs) -> Html:
    found = [
        (str(name), mapping(row)) for name, row in mapping(inputs.audit.get("tokens_by_language")).items()
    ]
    if not found:
        return missing("The account does not tell tokens by language.")
    found.sort(key=lambda entry: (-(count_of(entry[1].get("tokens")) or 0), entry[0]))
    most = max((number(row.get("bytes_per_token")) or 0.0 for _, row in found), default=0.0)
    rows = [[language_name(name), *_cells(row, most)] for name, row in found[:MAX_LANGUAGES]]
    words = note(
        "More bytes per token means shorter sequences for the same text: 3.5 to 5 are usual for "
        "English, about 3 to 4 for Chinese with a vocabulary made for it. Unknown tokens lose text; "
        "single-byte tokens spell out letters that the vocabulary lacks. Worry at the marked values: "
        "that language needs a vocabulary that was trained on it."
    )
    headings = ["Language", "Tokens", "Bytes per token", "Unknown", "Single bytes"]
    shown = table(headings, rows, caption="Fit of the vocabulary by language", class_="numbers plain")
    return join([words, shown])


def _cells(row: Object, most: float) -> list[object]:
    per_token = count_of(row.get("bytes_per_token"))
    return [
        tokens(count_of(row.get("tokens"))),
        UNKNOWN if per_token is None else _metered(per_token, most),
        _share(number(row.get("unknown_share")), HIGH_UNKNOWN_SHARE),
        _share(number(row.get("single_byte_share")), HIGH_SINGLE_BYTE_SHARE),
    ]


def _metered(per_token: float, most: float) -> Html:
    written = tag("span", exact(per_token, significant, "bytes per token"), class_="value")
    return join([meter(per_token / most if most else 0.0), written])


def _share(share: float | None, high: float) -> object:
    if share is None:
        return UNKNOWN
    class_ = "heed" if share > high else None
    return tag("span", share_text(share), title=f"{share:.6g} of the tokens", class_=class_)


def _shards(inputs: DataInputs) -> Html:
    tokenizer = mapping(inputs.manifest.get("tokenizer"))
    shown = splits_table(mapping(inputs.manifest.get("splits")))
    if not shown:
        return missing("No manifest.json names any shards", "maskwright prepare")
    words = note(
        "The model learns from the train split and is measured on the validation split, whose documents"
        " were held out by a key of their id. Worry when the validation split has fewer than a hundred "
        "documents: its loss is then mostly noise."
    )
    count, dtype = all_tokens(inputs), inputs.manifest.get("dtype")
    vocabulary = count_of(tokenizer.get("vocab_size"))
    size = {"uint16": 2, "uint32": 4}.get(str(dtype))
    rows: list[tuple[object, object]] = [
        ("Tokens in all", tokens(count) if count is not None else None),
        ("Vocabulary", f"{grouped(vocabulary)} entries" if vocabulary is not None else None),
        ("Stored as", f"{dtype}, {size} bytes a token" if size else None),
        ("Name of the data", _code(inputs.manifest.get("fingerprint"))),
        ("Name of the tokenizer", _code(tokenizer.get("fingerprint"))),
    ]
    return join([words, shown, facts(rows)])


def _code(value: object) -> Html | None:
    return code(value) if value is not None else None
