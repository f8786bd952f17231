"""Put the data report together: the files of a data folder in, one HTML file in it out."""

from __future__ import annotations

from pathlib import Path

from maskwright.core.files import write_text

from ..page import render_page
from .contamination import contamination_section
from .drops import drops_section
from .duplicates import duplicates_section
from .headline import lede, problems, tiles, warnings
from .inputs import read_data_folder
from .sources import sources_section
from .text import text_section
from .tokens import tokens_section
from .work import again_section, inputs_section, speed_section

__all__ = ["build_data_report"]

FILE_NAME = "data_report.html"


def build_data_report(folder: Path) -> Path:
    """Write `data_report.html` into a data folder, from the files that lie in it.

    It reads `audit.json`, `timings.json`, `manifest.json` and `config.yaml`. Where one is missing or
    damaged, the page says so and shows the rest, so that it can be made at any time.

    Args:
        folder: the data folder.

    Returns:
        The page's path.

    Raises:
        StorageError: the storage refused.
    """
    inputs = read_data_folder(folder.absolute())
    sections = [
        sources_section(inputs),
        drops_section(inputs),
        duplicates_section(inputs),
        contamination_section(inputs),
        text_section(inputs),
        tokens_section(inputs),
        speed_section(inputs),
        inputs_section(inputs),
        again_section(inputs),
    ]
    summary = [lede(inputs), problems(inputs), warnings(inputs), tiles(inputs)]
    page = render_page(inputs.name, "Maskwright data report", summary, sections)
    path = folder / FILE_NAME
    write_text(path, page)
    return path
