"""HTML that is safe by construction: a plain `str` is always escaped, only `Html` is not.

Every helper takes any number of children and escapes those that are not `Html`, so text from
documents, labels or configs cannot become markup by being forgotten. An f-string over `Html`
gives a plain `str` again, and is escaped: a mistake shows on the page instead of running in it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "Html",
    "Section",
    "code",
    "details",
    "escape",
    "facts",
    "figure_grid",
    "figure_heading",
    "join",
    "missing",
    "note",
    "part",
    "table",
    "tag",
    "tile_list",
]

# Control characters are not allowed in HTML; lone surrogates cannot be written as UTF-8.
_FORBIDDEN = {code: "�" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\t\n"}


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A part of the page that the table of contents names.

    Args:
        key: its anchor.
        title: its heading.
        body: what stands below the heading.
        parts: anchor and title of the headings inside the body.
    """

    key: str
    title: str
    body: Html
    parts: Sequence[tuple[str, str]] = ()

    def render(self) -> Html:
        """The section with its heading."""
        return tag("section", tag("h2", self.title), self.body, id=self.key)


def escape(value: object) -> Html:
    """Turn any value into markup: `Html` as it is, everything else as escaped text."""
    if isinstance(value, Html):
        return value
    text = str(value).encode("utf-8", "replace").decode().replace("\r\n", "\n").translate(_FORBIDDEN)
    return Html(html.escape(text))


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Put parts one after the other, escaping those that are not `Html`."""
    return Html(separator.join(escape(part) for part in parts))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Make one element.

    Args:
        name: element name.
        *children: `Html`, or anything else, which is escaped as text.
        **attributes: values are escaped; `class_` becomes `class`, other underscores become
            hyphens, and None leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def code(text: object) -> Html:
    """Inline code."""
    return tag("code", text)


def note(*children: object) -> Html:
    """A quiet line of explanation under something."""
    return tag("p", *children, class_="note")


def missing(what: str, command: str | None = None) -> Html:
    """The line that stands where a part has no input.

    Args:
        what: what is not there, as the start of a sentence; a whole one without a command.
        command: the command that makes it, or None.
    """
    if command is None:
        return tag("p", what, class_="missing")
    pronoun = "one" if what.startswith("No ") else "it"
    return tag("p", what, "; ", code(command), f" makes {pronoun}.", class_="missing")


def details(summary: object, *children: object, open_: bool = False) -> Html:
    """A part that is folded away until it is asked for."""
    body = tag("div", *children, class_="folded")
    return tag("details", tag("summary", summary), body, open="" if open_ else None)


def part(key: str, title: str, *children: object) -> Html:
    """A part of a section, with its own heading and anchor."""
    return tag("div", tag("h3", title), *children, class_="part", id=key)


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Names and values; rows whose value is None are left out."""
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows if value is not None]
    return tag("dl", *pairs, class_="facts") if pairs else Html("")


def tile_list(rows: Iterable[tuple[str, object, str] | None]) -> Html:
    """Main numbers, each with its name above and what to measure it against below.

    Args:
        rows: name, number, comparison; None leaves the tile out.
    """
    shown = [
        tag("div", tag("dt", name), tag("dd", value), tag("dd", beside, class_="beside"))
        for name, value, beside in filter(None, rows)
    ]
    return tag("dl", *shown, class_="tiles") if shown else Html("")


def figure_heading(title: str | None, unit: str) -> Html:
    """What a figure shows and what it counts; no title where a heading above says it."""
    parts = [tag("strong", title)] if title else []
    parts += [tag("span", unit, class_="unit")] if unit else []
    return tag("figcaption", join(parts, " "))


def figure_grid(*figures: object) -> Html:
    """Figures side by side where there is room, one below the other where there is not."""
    return tag("div", *figures, class_="pair")


def table(
    headings: Sequence[object], rows: Iterable[Sequence[object]], *, caption: object, class_: str = ""
) -> Html:
    """A table that scrolls inside itself when the page is narrower than it is.

    Args:
        headings: column headings; the first column names the row.
        rows: cells, as many a row as there are headings.
        caption: what the table shows, for readers and screen readers.
        class_: further CSS classes.
    """
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    body = [
        tag("tr", tag("th", row[0], scope="row", dir="auto"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    inner = tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=class_ or None
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
