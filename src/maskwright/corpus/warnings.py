"""What stands out in the account of a corpus, in plain words, before anybody trains on it.

Every check is a pure function of `audit.json`; what the account does not say is not checked. Each
message says where, how much, and what to do about it. The limits are set so that a healthy corpus
gives no message: people stop reading lists that are always full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["data_warnings"]

DOMINANT_SHARE = 0.90
DUPLICATE_SHARE = 0.30
CLUSTER_SHARE = 0.01
CLUSTER_DOCUMENTS = 10
RULE_SHARE = 0.50
FEW_DOCUMENTS = 100
MENDED_SHARE = 0.01
STRAY_LANGUAGE_SHARE = 0.01
MAIN_LANGUAGE_SHARE = 0.90
# A source of this size, against the text of a language, may be of that language.
SOURCE_OF_LANGUAGE = (0.5, 1.2)
UNDETERMINED_SHARE = 0.05
UNKNOWN_SHARE = 0.01
SINGLE_BYTE_SHARE = 0.30
# A language of a few stray documents says nothing about the vocabulary.
LANGUAGE_TOKEN_SHARE = 0.001
LATIN_BYTES_PER_TOKEN = 2.0
VALIDATION_DOCUMENTS = 100
# Repeating data is nearly as good as new data up to about four epochs, and soon worth nothing after that.
MANY_REPEATS = 4.0
LONGEST_SHARE = 0.01
MAX_FILES = 3

UNDETERMINED = frozenset({"", "und", "unknown"})
# Languages that are mostly written in Latin letters, by ISO 639-1 code.
_LATIN_CODES = (
    "af az bs ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it la lb lt lv ms mt nb nl nn no pl pt "
    "ro sk sl sq sv sw tl tr uz vi"
)
LATIN = frozenset(_LATIN_CODES.split())
# Reasons that speak of damaged records rather than of a rule, with what to do.
DAMAGE = {
    "invalid_bytes": "look at the encoding of the files",
    "invalid_utf8": "convert the files to UTF-8, or set encoding_errors to replace",
    "malformed_json": "look whether the files were cut off, and at text_field",
    "malformed_record": "look whether the files were cut off",
    "malformed_row": "look at the separator and the quotes of the table",
    "text_outside_document": "look whether the files were cut off, and at their format",
    "unclosed_document": "look whether the files were cut off",
}
COPIES = ("exact_duplicate", "near_duplicate")

Check = Callable[[Mapping[str, Any]], Iterator[str]]


def data_warnings(audit: Mapping[str, Any]) -> list[str]:
    """Look through the account of a corpus for what would spoil a training run.

    Args:
        audit: the content of `audit.json`. Parts of it may be missing; their checks are left out.

    Returns:
        Messages, each with a value, its place and a remedy; the empty list where nothing stands out.
    """
    checks: tuple[Check, ...] = (
        _sources,
        _repeats,
        _copies,
        _clusters,
        _damage,
        _rules,
        _languages,
        _vocabulary,
        _bytes_per_token,
        _validation,
        _longest,
    )
    return [message for check in checks for message in check(audit)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _languages_of(audit: Mapping[str, Any]) -> dict[str, float]:
    """Bytes of text by language."""
    return {code: row.get("bytes", 0) for code, row in audit.get("languages", {}).items()}


def _sources(audit: Mapping[str, Any]) -> Iterator[str]:
    """One source is nearly everything, or another one gave nothing."""
    sources: Mapping[str, Any] = audit.get("sources", {})
    for name, source in sources.items():
        read = source.get("documents_read", 0)
        if read and not source.get("documents", 0):
            yield (
                f"{name}: none of its {read:,} documents is left; look at the samples of what was left "
                "out and loosen the rule that took most"
            )
    # What counts is how much of an epoch a source fills, after the mixture.
    amounts = {
        name: source.get("tokens", source.get("bytes", 0)) * source.get("repeats", 1.0)
        for name, source in sources.items()
    }
    total = sum(amounts.values())
    for name, amount in amounts.items():
        if len(amounts) > 1 and total and amount / total > DOMINANT_SHARE:
            yield (
                f"{name}: has {_percent(amount / total)} of the tokens of an epoch ({len(amounts)} "
                "sources), so the model hardly sees the others; if it should, add text to them or set "
                "mixture.weights"
            )


def _repeats(audit: Mapping[str, Any]) -> Iterator[str]:
    """A source is seen so often that the model learns it by heart.

    Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models": up to about four
    epochs cost little against new data. They measured whole corpora; we look at each source.
    """
    for name, source in audit.get("sources", {}).items():
        repeats = source.get("repeats", 1.0)
        if repeats > MANY_REPEATS:
            yield (
                f"{name}: is repeated {repeats:.1f} times in an epoch, and beyond {MANY_REPEATS:g} "
                "repeats text teaches little that is new; give it less weight in mixture or add more "
                "text like it"
            )


def _copies(audit: Mapping[str, Any]) -> Iterator[str]:
    """Much of the corpus is the same text again."""
    read, duplicates = audit.get("documents_read", 0), audit.get("duplicates", {})
    count = sum(duplicates.get(kind, {}).get("documents", 0) for kind in ("exact", "near"))
    if read and count / read > DUPLICATE_SHARE:
        yield (
            f"duplicates: {_percent(count / read)} of {read:,} documents were copies of others and were left "
            "out; look whether a source was given twice or is made from templates"
        )


def _clusters(audit: Mapping[str, Any]) -> Iterator[str]:
    """Very many documents are almost the same."""
    read = audit.get("documents_read", 0)
    for cluster in audit.get("duplicates", {}).get("near", {}).get("largest", [])[:1]:
        size = cluster.get("size", 0)
        if size >= CLUSTER_DOCUMENTS and size > CLUSTER_SHARE * read > 0:
            text = " ".join(str(cluster.get("text", "")).split())[:60]
            yield (
                f"{cluster.get('kept', 'near duplicates')}: stands for {size:,} documents that are "
                f"almost the same ({_percent(size / read)} of all), which begin with “{text}”; if that "
                "is a menu or a notice, leave such pages out by a rule"
            )


def _damage(audit: Mapping[str, Any]) -> Iterator[str]:
    """Files are cut off, of another format, or of another encoding."""
    drops = audit.get("drops", {})
    for reason, remedy in DAMAGE.items():
        count = drops.get(reason, 0)
        if count:
            what = "1 record" if count == 1 else f"{count:,} records"
            yield f"{reason}: left out {what} that could not be read{_where(audit)}; {remedy}"
    read = audit.get("documents_read", 0)
    for reason, count in audit.get("repairs", {}).items():
        if read and count / read > MENDED_SHARE:
            yield (
                f"{reason}: {count:,} documents ({_percent(count / read)}) had to be mended and may hold "
                "replacement characters; convert their files to UTF-8"
            )


def _where(audit: Mapping[str, Any]) -> str:
    files = sorted(audit.get("bad_lines", {}).items(), key=lambda row: (-row[1], row[0]))
    if not files:
        return ""
    named = ", ".join(f"{name} has {count:,}" for name, count in files[:MAX_FILES])
    more = f", and {len(files) - MAX_FILES} more files" if len(files) > MAX_FILES else ""
    return f" (bad lines in all: {named}{more})"


def _rules(audit: Mapping[str, Any]) -> Iterator[str]:
    """A rule takes more than it leaves, of the whole or of one source."""
    read = audit.get("documents_read", 0)
    named = set()
    for reason, count in audit.get("drops", {}).items():
        if _is_rule(reason) and read >= FEW_DOCUMENTS and count / read > RULE_SHARE:
            named.add(reason)
            yield _rule_message(reason, count, read, "")
    for name, source in audit.get("sources", {}).items():
        read = source.get("documents_read", 0)
        for reason, count in source.get("drops", {}).items():
            fresh = _is_rule(reason) and reason not in named
            if fresh and read >= FEW_DOCUMENTS and count / read > RULE_SHARE:
                yield _rule_message(reason, count, read, f"{name}, ")


def _is_rule(reason: str) -> bool:
    return reason not in DAMAGE and reason not in COPIES


def _rule_message(reason: str, count: int, read: int, place: str) -> str:
    return (
        f"{place}{reason}: left out {_percent(count / read)} of {read:,} documents; read its samples, and "
        "loosen or turn off the rule if it took text you want"
    )


def _languages(audit: Mapping[str, Any]) -> Iterator[str]:
    """A language that is hardly there was perhaps never wanted."""
    languages = _languages_of(audit)
    total = sum(languages.values())
    if not total:
        return
    lost = sum(size for code, size in languages.items() if code in UNDETERMINED)
    if lost / total > UNDETERMINED_SHARE:
        yield (
            f"languages: none could be named for {_percent(lost / total)} of the text; look whether it "
            "is text at all, rather than code, tables or wrongly decoded bytes"
        )
    main = max(languages, key=lambda code: (languages[code], code))
    for code, size in languages.items():
        other = code != main and code not in UNDETERMINED and size / total > STRAY_LANGUAGE_SHARE
        if other and languages[main] / total > MAIN_LANGUAGE_SHARE and not _has_a_source(size, audit):
            yield (
                f"language {code}: has {_percent(size / total)} of a corpus that is mostly {main}; if "
                "that was not expected, name those to keep in corpus.rules.language.languages"
            )


def _has_a_source(size: float, audit: Mapping[str, Any]) -> bool:
    """Whether a source is about as large as the text of a language, and so was probably added for it."""
    amounts = [source.get("bytes", 0) for source in audit.get("sources", {}).values()]
    return any(SOURCE_OF_LANGUAGE[0] <= amount / size <= SOURCE_OF_LANGUAGE[1] for amount in amounts)


def _vocabulary(audit: Mapping[str, Any]) -> Iterator[str]:
    """A language is spelt out in crumbs or lost."""
    found: Mapping[str, Any] = audit.get("tokens_by_language", {})
    total = sum(row.get("tokens", 0) for row in found.values())
    for code, row in found.items():
        if row.get("tokens", 0) <= LANGUAGE_TOKEN_SHARE * total:
            continue
        place = f"language {code}" if code not in UNDETERMINED else "tokens"
        unknown, single = row.get("unknown_share", 0.0), row.get("single_byte_share", 0.0)
        if unknown > UNKNOWN_SHARE:
            yield (
                f"{place}: {_percent(unknown)} of its tokens are unknown, so that text is lost; train "
                "the tokenizer on text like it, or take a byte-level one"
            )
        if single > SINGLE_BYTE_SHARE:
            yield (
                f"{place}: {_percent(single)} of its tokens are single bytes of letters that the "
                "vocabulary does not have, so sequences are long; train the tokenizer on text like it "
                "or raise tokenizer.vocab_size"
            )


def _bytes_per_token(audit: Mapping[str, Any]) -> Iterator[str]:
    """Text in Latin letters is cut into very small pieces."""
    found: Mapping[str, Any] = audit.get("tokens_by_language", {})
    total = sum(row.get("tokens", 0) for row in found.values())
    rows = {
        f"language {code}": row.get("bytes_per_token", 0.0)
        for code, row in found.items()
        if code in LATIN and row.get("tokens", 0) > LANGUAGE_TOKEN_SHARE * total
    }
    if all(code in UNDETERMINED for code in found):
        # No language was named. Other scripts take two bytes and more a letter, so this is low for any text.
        rows = {"tokens": audit.get("bytes_per_token", 0.0)}
    for place, per_token in rows.items():
        if 0 < per_token < LATIN_BYTES_PER_TOKEN:
            yield (
                f"{place}: {per_token:.2f} bytes per token, where 3.5 to 5 are usual; raise "
                "tokenizer.vocab_size, or take a tokenizer that was trained on text like this"
            )


def _validation(audit: Mapping[str, Any]) -> Iterator[str]:
    """Too little is held out to measure by."""
    split = audit.get("splits", {}).get("validation")
    count = VALIDATION_DOCUMENTS if split is None else split.get("documents", VALIDATION_DOCUMENTS)
    if count < VALIDATION_DOCUMENTS:
        yield (
            f"validation: has {count:,} documents, so its loss will be mostly noise; raise validation_share "
            "or add documents"
        )


def _longest(audit: Mapping[str, Any]) -> Iterator[str]:
    """One document is a large part of everything.

    Characters are compared with bytes, so the true share is as large or larger.
    """
    size, kept = audit.get("bytes_kept", 0), audit.get("documents_kept", 0)
    longest = audit.get("longest_document_characters", 0)
    # In a corpus of a few documents each one is a large part; only ten times the mean is worth a word.
    if size and kept and longest / size > max(LONGEST_SHARE, 10 / kept):
        yield (
            f"longest document: has {longest:,} characters, {_percent(longest / size)} of all text; look"
            " whether it is many documents in one (split_documents), or set corpus.max_characters"
        )
