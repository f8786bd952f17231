"""Rule `html`: take out what an imperfect extraction left of HTML: tags, scripts, entities.

Angle brackets mean other things as well, so a tag goes only if it is clearly one:

- its name is an element of HTML. `s` is left out of the list, because `</s>` is a special token
  of RoBERTa; `<mask>` and other placeholders are no elements;
- it closes an element, has an attribute with a value, closes itself, or is `<br>`, `<hr>`, `<wbr>`.
  A bare opening tag goes only if the text closes the same element somewhere (for `p`, `li` and table
  cells, which HTML need not close: if the text has any clear tag). So `vector<time>`, `<input>` in a
  usage line and `a <b and c> d` stay;
- it does not stand in a code span or block of Markdown, between backquotes.

Comments, and scripts and styles with all they hold, go as well. Entities that HTML knows become
characters, also those that were escaped twice.
"""

from __future__ import annotations

import html
import html.entities
import re
from dataclasses import replace

from ...core.config import Config
from ..document import Document, Drop, Step
from ..normalise import UnicodeForm, normalise_text
from .stable import until_stable

__all__ = ["Html", "html_step", "without_html"]

_CELLS = frozenset(["dd", "dt", "li", "option", "p", "td", "th", "tr"])
_BLOCK_NAMES = """
    address article aside blockquote body br caption center dir div dl fieldset figcaption figure footer
    form h1 h2 h3 h4 h5 h6 head header hr html main nav ol pre section table tbody tfoot thead title ul
"""
_INLINE_NAMES = """
    a abbr acronym audio b big button canvas cite code col colgroup data datalist del details dfn dialog
    em embed font i iframe img input ins kbd label legend link map mark meta noscript object optgroup
    output param picture progress q rp rt ruby samp script select small source span strike strong style
    sub summary sup svg template textarea time track tt u var video wbr
"""
_BLOCKS = _CELLS | frozenset(_BLOCK_NAMES.split())
_INLINES = frozenset(_INLINE_NAMES.split())
_ELEMENTS = _BLOCKS | _INLINES
_ALONE = frozenset(["br", "hr", "wbr"])

_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_ATTRIBUTE = r"\s+[A-Za-z_:@][\w:.@-]*(?:\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'|[^\s\"'<>=`]+))?"
_TAG = re.compile(rf"<(/?)([A-Za-z][A-Za-z0-9]{{0,10}})((?:{_ATTRIBUTE})*)\s*(/?)>", re.ASCII)
_CLOSING = re.compile(r"</([A-Za-z][A-Za-z0-9]{0,10})\s*>")
_HIDDEN = re.compile(r"<!--|<(script|style)\b[^<>]*>", re.IGNORECASE | re.ASCII)
_ENDS = {
    "": re.compile("-->"),
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
}
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ESCAPED_AGAIN = re.compile(r"&(?:(?:amp|AMP|#0{0,4}38|#[xX]0{0,4}26);)+")
# Where block elements stood, until the line feeds around them are counted. Normalised text has none.
_SEAM = "\v"
_SEAMS = re.compile(r"\n*\v[\n\v]*")


class Html(Config):
    """The rule `html` has no settings."""


def html_step(settings: Html, form: UnicodeForm = "NFC") -> Step:
    """A step that removes remnants of HTML, as the module describes.

    Source: our own rules.

    Args:
        settings: none there are.
        form: the Unicode normal form of the corpus, which a changed text gets again.

    Returns:
        A step. It changes the text, and drops with the reason `empty` what has none left.
    """

    def step(document: Document, /) -> Document | Drop:
        text = without_html(document.text, form)
        if not text:
            return Drop("empty")
        return document if text == document.text else replace(document, text=text)

    return step


def without_html(text: str, form: UnicodeForm = "NFC") -> str:
    """The text without remnants of HTML.

    Args:
        text: any text; what holds no remnant comes back as it is.
        form: Unicode normal form for a text that changes.

    Returns:
        The text, perhaps empty.
    """
    if not ("<" in text and ">" in text) and not ("&" in text and ";" in text):
        return text
    return until_stable(lambda text: _one_pass(text, form), text)


def _one_pass(text: str, form: UnicodeForm) -> str:
    closed = {name.lower() for name in _CLOSING.findall(text)}
    has_html = not closed.isdisjoint(_ELEMENTS) or any(map(_is_certain, _TAG.finditer(text)))

    def replacement(match: re.Match[str]) -> str:
        name = match[2].lower()
        if not (_is_certain(match) or (_is_bare(match) and _is_closed(name, closed, has_html))):
            return match.group()
        return _SEAM if name in _BLOCKS else ""

    # Code between backquotes stands at the odd places.
    parts = _CODE.split(text)
    parts[::2] = [_decoded(_TAG.sub(replacement, _without_hidden(part))) for part in parts[::2]]
    changed = "".join(parts)
    return text if changed == text else normalise_text(_SEAMS.sub(_line_feeds, changed), form)


def _line_feeds(match: re.Match[str]) -> str:
    """An empty line where there was one, or where two blocks met; else an end of line."""
    return "\n\n" if max(match.group().count("\n"), match.group().count(_SEAM)) > 1 else "\n"


def _is_element(name: str) -> bool:
    """Whether HTML has the element. `<Button/>` in mixed case is a component in a program."""
    return name.lower() in _ELEMENTS and (name.islower() or name.isupper())


def _is_bare(match: re.Match[str]) -> bool:
    return _is_element(match[2]) and not match[3]


def _is_certain(match: re.Match[str]) -> bool:
    marked = match[1] or match[4] or "=" in match[3] or match[2].lower() in _ALONE
    return bool(marked) and _is_element(match[2])


def _is_closed(name: str, closed: set[str], has_html: bool) -> bool:
    return name in closed or (name in _CELLS and has_html)


def _without_hidden(text: str) -> str:
    """The text without comments, scripts and styles; an opening without an end is left where it is."""
    if "<!--" not in text and "</" not in text:
        return text
    parts, position = [], 0
    endless: set[str] = set()  # looked for once to the end of the text, never again
    while match := _HIDDEN.search(text, position):
        kind = (match[1] or "").lower()
        end = None if kind in endless else _ENDS[kind].search(text, match.end())
        if end is None:
            endless.add(kind)
            parts.append(text[position : match.end()])
            position = match.end()
        else:
            parts.append(text[position : match.start()])
            position = end.end()
    return "".join([*parts, text[position:]])


def _decoded(text: str) -> str:
    if "&" not in text:
        return text
    return _ENTITY.sub(_character, _ESCAPED_AGAIN.sub("&", text))


def _character(match: re.Match[str]) -> str:
    name = match.group()[1:]
    return html.unescape(match.group()) if name[0] == "#" or name in html.entities.html5 else match.group()
