from hypothesis import given
from hypothesis import strategies as st

from maskwright.report.markup import (
    Html,
    Section,
    code,
    details,
    escape,
    facts,
    figure_heading,
    join,
    missing,
    part,
    table,
    tag,
)


def test_plain_text_is_escaped_and_markup_is_not():
    assert escape("<b> & \"q\" 'a'") == "&lt;b&gt; &amp; &quot;q&quot; &#x27;a&#x27;"
    assert escape(Html("<b>")) == "<b>"
    assert escape(1.5) == "1.5"


def test_an_f_string_over_markup_is_escaped_again():
    assert tag("p", f"{tag('b', 'x')}") == "<p>&lt;b&gt;x&lt;/b&gt;</p>"


@given(st.text())
def test_no_text_leaves_its_element_or_its_attribute(text):
    written = tag("p", text, title=text)
    assert written.count("<") == 2
    assert written.count('"') == 2


def test_control_characters_and_lone_surrogates_are_replaced():
    assert escape("a\x00b\x1bc\x85\ud800") == "a�b�c�?"
    assert escape("line\r\nline\tend") == "line\nline\tend"


def test_attribute_names_are_translated_and_none_is_left_out():
    assert tag("i", class_="a", data_x=1, title=None) == '<i class="a" data-x="1"></i>'


def test_join_escapes_parts_but_not_the_separator():
    assert join(["<", Html("<i>")], "\n") == "&lt;\n<i>"


def test_missing_names_the_command():
    assert "data/audit.json is missing; <code>x prepare</code> makes it." in missing(
        "data/audit.json is missing", "x prepare"
    )
    assert "No run was given; <code>x</code> makes one." in missing("No run was given", "x")


def test_table_marks_its_headings():
    written = table(["name", "count"], [["<a>", 3]], caption="Counts")
    assert '<th scope="col">name</th>' in written
    assert '<th scope="row" dir="auto">&lt;a&gt;</th><td>3</td>' in written
    assert "<caption>Counts</caption>" in written
    assert 'aria-label="Counts"' in written


def test_details_open_only_when_asked():
    assert details("more", "text").startswith("<details><summary>more</summary>")
    assert 'open=""' in details("more", "text", open_=True)


def test_facts_leave_out_what_is_unknown():
    assert facts([("a", 1), ("b", None)]).count("<dt>") == 1
    assert facts([("a", None)]) == ""


def test_headings():
    assert figure_heading(None, "nats") == '<figcaption><span class="unit">nats</span></figcaption>'
    assert figure_heading("Loss", "") == "<figcaption><strong>Loss</strong></figcaption>"
    assert part("k", "T", "x") == '<div class="part" id="k"><h3>T</h3>x</div>'
    assert Section("k", "T", code("x")).render() == '<section id="k"><h2>T</h2><code>x</code></section>'
