from __future__ import annotations

import unicodedata

import pytest
from corpus_helpers import document, shared_data
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.document import Drop
from maskwright.corpus.normalise import normalise_step, normalise_text

# Characters that meet the rules far more often than arbitrary text does.
TRICKY = st.text(
    st.sampled_from("a \t\n\r\x0b\x0c\x85\u2028\u2029\u00a0\u3000e\u0301\u212a\uff21\u200b\u200c\u200d"
                    "\ufeff\u00ad\u0915\u094d\u0937\u1100\u1161\u11a8\ufb01\ufdfa\ud800\x00\u0344😀🏴\U000e0067")
)  # fmt: skip
FORMS = st.sampled_from(["NFC", "NFKC"])


@given(st.one_of(TRICKY, st.text(), st.text(st.characters())), FORMS)
def test_twice_is_once(text, form):
    once = normalise_text(text, form)
    assert normalise_text(once, form) == once


@given(st.one_of(TRICKY, st.text(st.characters())), FORMS)
def test_the_result_is_normal_printable_utf8(text, form):
    result = normalise_text(text, form)
    result.encode()
    assert unicodedata.is_normalized(form, result)
    assert not any(unicodedata.category(c) == "Cc" for c in result if c not in "\n\t")
    assert not set(result) & set("\u200b\ufeff\u00ad\u2028\u2029")
    assert all(line == line.rstrip() for line in result.split("\n"))
    assert not result.startswith("\n")
    assert not result.endswith("\n")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_visible_ascii_is_left_alone(text):
    assert normalise_text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\x0cd\x0be\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\r\n\r\nb\r\n", "a\n\nb"),
        ("e\u0301", "é"),
        ("e\u200b\u0301", "é"),
        ("x \t\u00a0\ny\u3000", "x\ny"),
        ("\n\n  indented\n", "  indented"),
        ("a\x00b\x1b[0m\x7fc\x9f", "ab[0mc"),
        ("soft\u00adhyphen\ufeff zero\u200bwidth \u202eturn\u2069", "softhyphen zerowidth turn"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("tab\tstays", "tab\tstays"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("a\u200db \u200dक क\u200d", "ab क क"),
        ("क\u200d\u200c\u200dष", "क\u200dष"),
        ("<mask> and </s> stay", "<mask> and </s> stay"),
        ("ﬁ Ａ", "ﬁ Ａ"),
    ],
)
def test_known_cases(text, expected):
    assert normalise_text(text) == expected


def test_nfkc_folds_compatibility_characters():
    assert normalise_text("ﬁ Ａ①", "NFKC") == "fi A1"


def test_long_white_space_takes_linear_time():
    text = (" " * 200_000 + "x") * 2
    assert len(normalise_text(text)) == len(text)


def test_step_keeps_the_very_document_when_nothing_changes():
    original = document("plain text")
    assert normalise_step()(original) is original


def test_step_changes_only_the_text():
    changed = normalise_step()(document("a \n"))
    assert changed == document("a")


@pytest.mark.parametrize("text", ["", " \n\t ", "\u200b\ufeff", "\r\n\r\n"])
def test_step_drops_what_has_no_text(text):
    assert normalise_step()(document(text)) == Drop("empty")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["blns.txt", "kuhn-utf8-test.txt", "utf8tests.bin"])
def test_awkward_files_normalise_to_a_fixed_point(name):
    text = (shared_data() / "awkward" / name).read_bytes().decode(errors="replace")
    once = normalise_text(text)
    assert once
    assert normalise_text(once) == once
