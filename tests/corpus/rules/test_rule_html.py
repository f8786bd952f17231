from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.document import Document, Drop
from maskwright.corpus.normalise import normalise_text
from maskwright.corpus.rules.html import Html, html_step, without_html
from maskwright.corpus.rules.stable import until_stable

MARKS = """
< > </ /> b p div <b> </b> <br> </p> &amp; &lt; &gt; amp; lt; &#38; #60; & <!-- --> <script> </script> ` ```
text <mask> &nbsp; &#173; " a=' </a>
"""
PIECES = st.sampled_from([*MARKS.split(), "<p class='x'>", " ", "\n", "\u00a0"])


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["NFC", "NFKC"]))
def test_twice_is_once(text, form):
    once = without_html(normalise_text(text, form), form)
    assert without_html(once, form) == once
    assert normalise_text(once, form) == once


@given(st.text(st.sampled_from("ab<>&; \n=\"'1"), max_size=60))
def test_texts_without_names_of_elements_stay(text):
    text = (
        normalise_text(text).replace("<a", "<x").replace("<b", "<x").replace("</a", "/x").replace("</b", "/x")
    )
    assert without_html(text) == normalise_text(text) or "&" in text


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d then",
        "a <b and c> d",
        "x<y>z",
        "vector<int> v; map<string, time> m;",
        "std::vector<time> when;",
        "#include <map>",
        "usage: copy <input> <output>",
        "<mask> and </s> and <s> and <unk> and <pad>",
        "predict the <mask> word, <b never closed",
        "Map<A, B> and List<Button/> and <Input disabled/>",
        "write `<b>bold</b>` and ```\n<div class='x'>&amp;</div>\n``` for it",
        "AT&T; R&D, fish & chips; a &unknown; b",
        "https://x.example/?a=1&copy=2&lt",
        "<!-- never closed",
        "<script> never closed",
        "<3 and >.< and <> and </>",
        "<input disabled>",
        "the tag <p> opens a paragraph",
    ],
)
def test_what_is_not_html_stays(text):
    original = document(text)
    assert html_step(Html())(original) is original


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>bold</b> and <EM>loud</EM>", "bold and loud"),
        ('see <a href="http://x.example/?a>b">here</a>.', "see here."),
        ("<a href=x.html target=_blank>here</a>", "here"),
        ("one<br>two<br/>three<BR />four", "one\ntwo\nthree\nfour"),
        ("<p>One.<p>Two.</p>", "One.\nTwo."),
        ("line one<br>\nline two", "line one\nline two"),
        ("<ul><li>a<li>b</ul>", "a\nb"),
        ("<div class='a'>x</div>\n\n\n\n<div>y</div>", "x\n\ny"),
        ("a<!-- hidden\n words -->b", "ab"),
        ("a<script type='x'>if (a<b) { }</script>b<style>p {}</STYLE >c", "abc"),
        ("字<SCRIPT>x</SCRIPT>字", "字字"),
        ("<!-- one --> <!-- open a<b>b</b>", " <!-- open ab"),
        ("&lt;br&gt;", ""),
        ("Tom &amp; Jerry &amp;amp; Co", "Tom & Jerry & Co"),
        ("&amp;lt; &#60; &#x3C; &nbsp;.", "< < < \u00a0."),
        ("&eacute;t&#233; &mdash; &#8212;", "été — —"),
        ("e&#769;", "é"),
        ("soft&shy;hyphen", "softhyphen"),
        ("keep &lt;mask&gt; here", "keep <mask> here"),
        ("code `&amp;` and text &amp;", "code `&amp;` and text &"),
        ("<img src='x.png' alt='y'>picture", "picture"),
        ("bad number &#55296; &#0;", "bad number \ufffd \ufffd"),
    ],
)
def test_remnants_go(text, expected):
    assert without_html(text) == expected


def test_lines_elsewhere_keep_their_distance():
    assert without_html("a\n\n\n\nb <b>c</b>") == "a\n\n\n\nb c"


def test_nkfc_is_taken_where_asked():
    assert without_html("&#64257;", "NFKC") == "fi"
    assert without_html("&#64257;") == "ﬁ"


def test_nothing_left_is_a_drop():
    assert html_step(Html())(document("<br> &nbsp; <hr>")) == Drop("empty")


def test_only_the_text_changes():
    original = Document("<b>x</b>", "id", "source", {"language": "en"})
    assert html_step(Html())(original) == Document("x", "id", "source", {"language": "en"})


@pytest.mark.parametrize(
    "text",
    [
        "&amp;" * 20_000,
        "&" + "amp;" * 20_000,
        "<b" * 20_000,
        "<!--" * 20_000,
        "<script>" * 20_000 + "</style>",
        "<a " + "x='" * 20_000,
        "`" * 20_001,
        "<a href=" * 20_000 + "</a>",
        "<b>" * 20_000 + "</b>" * 20_000,
    ],
)
def test_nasty_texts_come_to_an_end(text):
    assert without_html(without_html(text)) == without_html(text)


def test_a_text_that_never_rests_comes_back_as_it_was():
    nested = "<" * 30 + "b>" * 30 + "</b>"
    nested = nested.replace("<b>", "<b></b>", 1)
    assert until_stable(lambda text: text + "x", "a") == "a"
    assert without_html(nested) == without_html(without_html(nested))


@given(st.integers(0, 30))
def test_ten_passes_are_the_most(steps):
    def countdown(text):
        return text[1:] if text.startswith("x") else text

    text = "x" * steps + "y"
    assert until_stable(countdown, text) == ("y" if steps <= 10 else text)
