"""What the reasons of drops mean, in a sentence for people who have not read the rules."""

from __future__ import annotations

import re

__all__ = ["UNREADABLE", "explain"]

# Records that never became text: given by the readers, and by normalising where nothing is left.
UNREADABLE = {
    "empty": "Nothing was left of the text after normalising.",
    "empty_file": "The file holds no record at all.",
    "http_status": "The page was not delivered: the server answered with an error or another address.",
    "invalid_bytes": "Holds bytes that cannot be decoded.",
    "invalid_utf8": "Holds bytes that are not UTF-8, and the settings say to skip such records.",
    "malformed_json": "A line that is no JSON object, or whose text field is missing or no text.",
    "malformed_record": "A record of a web archive that is damaged.",
    "malformed_row": "A row of a table with a number of cells that its heading does not allow.",
    "not_html": "A page of another kind than HTML, such as a picture.",
    "not_text": "A record of another kind than text.",
    "record_type": "A record of a web archive that holds no page, such as a request.",
    "text_outside_document": "Text that stands between two documents of an extracted wiki.",
    "too_long_record": "A record of a web archive that is too large to be a page of text.",
    "too_nested": "A page whose elements are nested deeper than real pages are.",
    "unclosed_document": "A document of an extracted wiki whose end is missing.",
    "unparsable_module": "A module of Python whose source cannot be parsed, so its documentation is unknown.",
}
_MEANINGS = {
    **UNREADABLE,
    "bullets": "Nearly every line starts with a bullet: a list rather than text.",
    "contaminated": "Shares a long run of words with a test set; learning it would make the test too easy.",
    "curly_bracket": "Holds a curly bracket, which is common in code and rare in text.",
    "digits": "Too many of its characters are digits: tables, prices, logs.",
    "ellipses": "Too many ellipses for each word: teasers rather than text.",
    "ellipsis_lines": "Too many lines end in an ellipsis: teasers rather than text.",
    "exact_duplicate": "The same text, letter by letter, stands earlier in the data.",
    "few_alphabetic_words": "Too few of its words hold a letter.",
    "few_han_characters": "Too few of its characters are Chinese.",
    "few_punctuated_lines": "Too few of its lines end as sentences do.",
    "few_sentences": "Too few sentences were left.",
    "few_stop_characters": "Too few of the small characters that every Chinese text has.",
    "few_stop_words": "Too few of the small words that every English text has.",
    "hash_signs": "Too many hash signs for each word.",
    "long_words": "Its words are too long on average: addresses, code, or no spaces.",
    "lorem_ipsum": "Holds “lorem ipsum”, the text of unfinished pages.",
    "near_duplicate": "Almost the same text stands elsewhere in the data, and that copy was kept.",
    "other_language": "In a language that was not asked for.",
    "repeated_lines": "Its lines stand in the data already, or too much of it is the same lines again.",
    "short_lines": "Too many of its lines are short: a menu or a list.",
    "short_words": "Its words are too short on average.",
    "too_few_characters": "Too few characters to be a text.",
    "too_few_words": "Too few words to be a text.",
    "too_long": "Longer than corpus.max_characters.",
    "too_many_characters": "More characters than a page of text has.",
    "too_many_words": "More words than a page of text has.",
    "too_short": "Shorter than corpus.min_characters: often a title, a menu or an empty page.",
    "uncertain_language": "Its language could not be told with enough certainty.",
}
_REPEATED = re.compile(r"duplicate_(line|paragraph)(s|_characters)|(duplicate|top)_(\d+)gram")


def explain(reason: str) -> str | None:
    """What a reason means; None for one that is not known here."""
    found = _REPEATED.fullmatch(reason)
    if found is None:
        return _MEANINGS.get(reason)
    if found[1]:
        return f"Too much of it is the same {found[1]}s again."
    frequent = "its most frequent run of" if found[3] == "top" else "repeated runs of"
    return f"Too much of it is {frequent} {found[4]} words."
