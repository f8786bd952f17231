from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.document import Document, Drop
from maskwright.corpus.rules.bullets import Bullets, bullets_step
from maskwright.corpus.rules.c4_lines import C4Lines, c4_lines_step, num_sentences
from maskwright.corpus.rules.duplicate_lines import DuplicateLines, duplicate_lines_step, repeated_parts
from maskwright.corpus.rules.ellipsis_lines import EllipsisLines, ellipsis_lines_step
from maskwright.corpus.rules.fineweb_lines import FinewebLines, fineweb_lines_step


def lines(*parts):
    return document("\n".join(part for text, count in parts for part in [text] * count))


@pytest.mark.parametrize("bullet", ["• a", "- a", "* a", "– a", "  ■a", "·甲"])
def test_more_than_nine_lines_in_ten_with_a_bullet(bullet):
    step = bullets_step(Bullets())
    kept, dropped = lines((bullet, 9), ("prose", 1)), lines((bullet, 19), ("prose", 1))
    assert step(kept) is kept
    assert step(dropped) == Drop("bullets", "0.950 of lines, at most 0.9")


@pytest.mark.parametrize("text", ["-5 degrees", "*emphasis*", "--- a rule", "–5", "1. one"])
def test_what_only_looks_like_a_bullet(text):
    assert bullets_step(Bullets())(document(text)) == document(text)


@pytest.mark.parametrize("end", ["...", "…", "……"])
def test_more_than_three_lines_in_ten_with_an_ellipsis(end):
    step = ellipsis_lines_step(EllipsisLines())
    kept, dropped = lines(("more" + end, 3), ("prose.", 7)), lines(("more" + end, 4), ("prose.", 6))
    assert step(kept) is kept
    assert step(dropped) == Drop("ellipsis_lines", "0.400 of lines, at most 0.3")


def test_empty_lines_do_not_count():
    text = document("- a\n\n\n- b\n\n")
    assert bullets_step(Bullets())(text) == Drop("bullets", "1.000 of lines, at most 0.9")
    assert bullets_step(Bullets())(document("\n\n")) == document("\n\n")


OFF = {"max_lines": 1, "max_line_characters": 1, "max_paragraphs": 1, "max_paragraph_characters": 1}


@pytest.mark.parametrize(
    ("limit", "text", "expected"),
    [
        ("max_lines", "a\na\nb", Drop("duplicate_lines", "0.333 of lines, at most 0.3")),
        (
            "max_line_characters",
            "long line\nlong line\nother",
            Drop("duplicate_line_characters", "0.391 of characters, at most 0.2"),
        ),
        (
            "max_paragraphs",
            "a\n1\n\na\n1\n\nb",
            Drop("duplicate_paragraphs", "0.333 of paragraphs, at most 0.3"),
        ),
        (
            "max_paragraph_characters",
            "a\n1\n\na\n1\n\nbbb",
            Drop("duplicate_paragraph_characters", "0.333 of characters, at most 0.2"),
        ),
    ],
)
def test_each_kind_of_repetition(limit, text, expected):
    settings = DuplicateLines(**{**OFF, limit: DuplicateLines.model_fields[limit].default})
    assert duplicate_lines_step(settings)(document(text)) == expected
    assert duplicate_lines_step(DuplicateLines(**OFF))(document(text)) == document(text)


@given(st.lists(st.sampled_from(["a", "bb", " bb ", "ccc", ""]), max_size=20), st.floats(0, 1))
def test_repeated_lines_are_exact(parts, limit):
    solid = [part.strip() for part in parts if part.strip()]
    repeats = len(solid) - len(set(solid))
    text = document("\n".join(parts))
    kept = duplicate_lines_step(DuplicateLines(**{**OFF, "max_lines": limit}))(text) is text
    assert kept == (repeats / max(1, len(solid)) <= limit)
    assert repeated_parts(solid) == (repeats, sum(map(len, solid)) - sum(map(len, set(solid))))


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=12))
def test_a_fresh_line_never_makes_repetition_worse(parts):
    step = duplicate_lines_step(DuplicateLines())
    text, longer = document("\n".join(parts)), document("\n".join([*parts, "fresh"]))
    if step(text) is text:
        assert step(longer) is longer


GOOD = "This is a sentence of several words."


def c4(text, **settings):
    result = c4_lines_step(C4Lines(**{"min_sentences": 1, **settings}))(document(text))
    return result.text if isinstance(result, Document) else result


@pytest.mark.parametrize(
    "line",
    [
        "Too few words.",
        "You must enable JavaScript to see this page.",
        "By reading on you accept our Privacy Policy here.",
        "This site uses cookies to make it better.",
        "Please read our terms of use before you go.",
    ],
)
def test_lines_that_go(line):
    assert c4(f"{GOOD}\n{line}\n{GOOD}") == f"{GOOD}\n{GOOD}"


def test_notices_can_stay():
    line = "You must enable JavaScript to see this page."
    assert c4(f"{GOOD}\n{line}", remove_notices=False) == f"{GOOD}\n{line}"


@pytest.mark.parametrize("end", [".", "!", "?", '"', "”"])
def test_sentence_marks_end_a_line(end):
    line = "A line of five words" + end
    assert c4(line, terminal_punctuation=True) == line


@pytest.mark.parametrize("end", ["", ",", ":", "...", "…", ")"])
def test_other_ends_cost_the_line_only_where_asked(end):
    line = "A line of five words" + end
    assert c4(f"{GOOD}\n{line}", terminal_punctuation=True) == GOOD
    assert c4(f"{GOOD}\n{line}") == f"{GOOD}\n{line}"


@given(st.integers(0, 12), st.integers(0, 8))
def test_words_of_a_line_are_exact(count, least):
    line = " ".join(["word"] * count)
    kept = c4(f"{GOOD} {GOOD}\n{line}", min_line_words=least).count("\n")
    assert kept == (count >= max(1, least))


def test_citation_marks_go_and_can_stay():
    text = "The town[1] has many[12] good people.[citation needed] History[edit] of a[i] b[1234]."
    assert c4(text) == "The town has many good people. History of a[i] b[1234]."
    assert c4(text, remove_citations=False) == text
    assert c4("Nested marks [[1]2] are two deep here.") == "Nested marks  are two deep here."


def test_pages_that_go():
    page = f"{GOOD}\nif (x) {{ y(); }}"
    assert c4(page) == Drop("curly_bracket", f"at character {page.index('{')}")
    assert c4(page, drop_curly_brackets=False, min_line_words=0) == page
    filler = f"{GOOD}\nHere is Lorem Ipsum dolor."
    assert c4(filler) == Drop("lorem_ipsum", f"at character {filler.index('Lorem')}")


def test_letters_between_do_not_make_filler():
    assert c4("Lorem字 ipsum is no filler text.") == "Lorem字 ipsum is no filler text."


def test_too_few_sentences():
    text = f"Title\n{GOOD} {GOOD}\nMenu"
    assert c4(text, min_sentences=3) == Drop("few_sentences", "2 sentences in 1 of 3 lines, at least 3")
    assert c4(text, min_sentences=2) == f"{GOOD} {GOOD}"
    assert c4("Menu", min_sentences=0) == Drop("few_sentences", "0 sentences in 0 of 1 lines, at least 0")


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three?", 3),
        ("no mark", 1),
        ('He said "yes." Then he left.', 2),
        ("3.14 is one", 1),
        ("(So.) Two", 2),
    ],
)
def test_sentences_are_counted_by_their_marks(line, count):
    assert num_sentences(line) == count


LINES = st.lists(
    st.sampled_from(
        [
            GOOD,
            "Menu",
            "",
            "a b c d e",
            "x y[1] z w v[[2]1].",
            "  indented line of five words. ",
            "use cookies a b c",
        ]
    )
)


@given(LINES, st.booleans())
def test_c4_twice_is_once_and_only_removes(parts, terminal):
    step = c4_lines_step(C4Lines(terminal_punctuation=terminal))
    once = step(document("\n".join(parts)))
    if isinstance(once, Document):
        assert step(once) is once
        assert set(once.text) <= set("\n".join(parts))
        assert once.text.count("\n") < max(1, len(parts))


@given(LINES)
def test_good_lines_at_the_end_are_added_as_they_are(parts):
    step = c4_lines_step(C4Lines())
    once = step(document("\n".join(parts)))
    more = step(document("\n".join([*parts, GOOD])))
    if isinstance(once, Document):
        assert more.text == f"{once.text}\n{GOOD}"


def test_c4_keeps_the_very_document_when_nothing_changes():
    text = document(f"{GOOD}\n{GOOD} {GOOD}")
    assert c4_lines_step(C4Lines())(text) is text


FINE = "This line is long enough to be no short line at all"


def test_fineweb_limits():
    step = fineweb_lines_step(FinewebLines())
    assert step(document(FINE)) == Drop("few_punctuated_lines", "0.000 of lines, at least 0.12")
    short = document("\n".join(["Short."] + [f"Short {i}." for i in range(8)] + [FINE + "."]))
    assert step(short) == Drop("short_lines", "0.900 of lines, at most 0.67")
    repeated = document("\n".join([FINE + "."] * 2 + [FINE + " again."]))
    assert step(repeated) == Drop("repeated_lines", "0.321 of characters, at most 0.1")


@pytest.mark.parametrize("text", ["", "\n \n", FINE + ".", FINE + "’", f"{FINE} one.\n{FINE} two"])
def test_fineweb_keeps_prose(text):
    assert fineweb_lines_step(FinewebLines())(document(text)) == document(text)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 100))
def test_fineweb_shares_are_exact(ended, open_ended, percent):
    text = document("\n".join([f"e{i}." for i in range(ended)] + [f"o{i}" for i in range(open_ended)]))
    limits = FinewebLines(min_punctuated=percent / 100, max_short=1, max_duplicate_characters=1)
    total = ended + open_ended
    assert (fineweb_lines_step(limits)(text) is text) == (not total or ended / total >= percent / 100)
    limits = FinewebLines(
        min_punctuated=0, max_short=percent / 100, short_characters=2, max_duplicate_characters=1
    )
    assert fineweb_lines_step(limits)(text) is text


@given(st.integers(1, 40))
def test_short_means_fewer_characters_than_the_limit(length):
    text = document("x" * length)
    settings = FinewebLines(min_punctuated=0, max_short=0.5, short_characters=20)
    assert (fineweb_lines_step(settings)(text) is text) == (length >= 20)
