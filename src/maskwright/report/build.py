"""Put the page together: one HTML file with its style, its script and nothing from outside.

The page depends on its inputs alone: no date, no host, so the same files give the same bytes. It
forbids the browser to load anything (`Content-Security-Policy`), and only the one script whose
hash is named may run, so text from documents could not act even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from maskwright.core.files import write_text

from .data import data_section
from .evaluation import evaluation_section
from .headline import lede, tiles
from .inputs import read_inputs
from .markup import Html, Section, escape, join, tag
from .predictions import predictions_section
from .pretraining import pretraining_section
from .reproduce import configuration_section, reproduce_section

__all__ = ["build_report", "write_report"]


def build_report(
    title: str,
    *,
    data: Path | None = None,
    pretrain: Path | None = None,
    finetune: Sequence[tuple[str, Path]] = (),
    command: str | None = None,
) -> str:
    """Turn the files of a run into one self-contained HTML page.

    Args:
        title: heading of the page.
        data: folder of prepared data, or None.
        pretrain: folder of a pretraining run, finished or not, or None.
        finetune: names and folders of fine-tuning runs; the first is shown in detail.
        command: the command that made the run, or None.

    Returns:
        The page. A part whose files are missing or damaged says so in a line.
    """
    inputs = read_inputs(data, pretrain, finetune)
    sections = [
        pretraining_section(inputs),
        data_section(inputs),
        predictions_section(inputs),
        evaluation_section(inputs.finetuned),
        configuration_section(inputs),
        reproduce_section(inputs, command),
    ]
    header = tag(
        "header",
        tag("p", "Maskwright report", class_="eyebrow"),
        tag("h1", title, dir="auto"),
        lede(inputs),
        tiles(inputs),
        id="summary",
    )
    footer = tag("footer", "Made by Maskwright. This page is whole: it loads nothing from anywhere.")
    main = tag("main", header, *(section.render() for section in sections), footer)
    return _page(title, tag("div", _contents(sections), main, class_="page"))


def write_report(
    path: str | Path,
    title: str,
    *,
    data: Path | None = None,
    pretrain: Path | None = None,
    finetune: Sequence[tuple[str, Path]] = (),
    command: str | None = None,
) -> None:
    """Build a report and write it atomically.

    Args:
        path: the HTML file to write.
        title: as for `build_report`, like all other arguments.
        data: folder of prepared data.
        pretrain: folder of a pretraining run.
        finetune: names and folders of fine-tuning runs.
        command: the command that made the run.

    Raises:
        StorageError: the storage refused.
    """
    page = build_report(title, data=data, pretrain=pretrain, finetune=finetune, command=command)
    write_text(path, page)


def _contents(sections: Sequence[Section]) -> Html:
    entries = [tag("li", tag("a", "Summary", href="#summary"))]
    for section in sections:
        parts = [tag("li", tag("a", title, href=f"#{key}")) for key, title in section.parts]
        inner = [tag("ol", *parts)] if parts else []
        entries.append(tag("li", tag("a", section.title, href=f"#{section.key}"), *inner))
    return tag("nav", tag("ol", *entries), aria_label="Contents")


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8").strip()


def _page(title: str, body: Html) -> str:
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
