"""One HTML file with its style, its script and nothing from outside.

The page forbids the browser to load anything (`Content-Security-Policy`), and only the one script
whose hash is named may run, so text from documents could not act even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from .markup import Html, Section, escape, join, tag

__all__ = ["render_page"]


def render_page(title: str, eyebrow: str, summary: Sequence[Html], sections: Sequence[Section]) -> str:
    """Put a page together.

    Args:
        title: its heading and the title of the window.
        eyebrow: the small line above the heading that says what kind of page it is.
        summary: what stands below the heading.
        sections: the parts of the page, in order; the table of contents names them.
    """
    header = tag(
        "header",
        tag("p", eyebrow, class_="eyebrow"),
        tag("h1", title, dir="auto"),
        *summary,
        id="summary",
    )
    footer = tag("footer", "Made by Maskwright. This page is whole: it loads nothing from anywhere.")
    main = tag("main", header, *(section.render() for section in sections), footer)
    return _document(title, tag("div", _contents(sections), main, class_="page"))


def _contents(sections: Sequence[Section]) -> Html:
    entries = [tag("li", tag("a", "Summary", href="#summary"))]
    for section in sections:
        parts = [tag("li", tag("a", title, href=f"#{key}")) for key, title in section.parts]
        inner = [tag("ol", *parts)] if parts else []
        entries.append(tag("li", tag("a", section.title, href=f"#{section.key}"), *inner))
    return tag("nav", tag("ol", *entries), aria_label="Contents")


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8").strip()


def _document(title: str, body: Html) -> str:
    style, script = _resource("style.css"), _resource("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            Html('<link rel="icon" href="data:,">'),
            tag("title", title),
            # Both files are ours and hold no markup; escaping would break them.
            tag("style", Html(style)),
        ],
        "\n",
    )
    parts = [tag("head", Html("\n"), head), tag("body", body, tag("script", Html(script)))]
    return f'<!doctype html>\n<html lang="en">\n{join(parts, chr(10))}\n</html>\n'
