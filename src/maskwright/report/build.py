"""The report of a run: its files in, one HTML page out.

The page depends on its inputs alone: no date, no host, so the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskwright.core.files import write_text

from .data import data_section
from .evaluation import evaluation_section
from .headline import lede, tiles
from .inputs import read_inputs
from .page import render_page
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
    return render_page(title, "Maskwright report", [lede(inputs), tiles(inputs)], sections)


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
