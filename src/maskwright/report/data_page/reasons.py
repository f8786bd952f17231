"""What the reasons of drops mean, in a sentence for people who have not read the rules."""

from __future__ import annotations

__all__ = ["explain"]

_MEANINGS = {
    "contaminated": "Shares a long run of words with a test set; learning it would make the test too easy.",
    "empty": "Nothing was left of the text after normalising.",
    "empty_file": "The file holds no record at all.",
    "exact_duplicate": "The same text, letter by letter, stands earlier in the data.",
    "invalid_utf8": "Holds bytes that are not UTF-8, and the settings say to skip such records.",
    "malformed_json": "A line that is no JSON object, or whose text field is missing or no text.",
    "malformed_row": "A row of a table with a number of cells that its heading does not allow.",
    "near_duplicate": "Almost the same text stands elsewhere in the data, and that copy was kept.",
    "too_long": "Longer than corpus.max_characters.",
    "too_short": "Shorter than corpus.min_characters: often a title, a menu or an empty page.",
    "unparsable_module": "A module of Python whose source cannot be parsed, so its documentation is unknown.",
}


def explain(reason: str) -> str | None:
    """What a reason means; None for one that is not known here."""
    return _MEANINGS.get(reason)
