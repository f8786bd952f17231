"""What deduplication decided about a part, as the later stages ask for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..dedup.lines import remove_lines
from ..dedup.tables import DROPS, LINE_DROPS, read_table
from ..document import Document, Drop

__all__ = ["Place", "Verdicts", "find_marks", "name_marks"]

Place = tuple[int, int]
Judge = Callable[[int, Document], Document | Drop]

_MARK = re.compile("\x02([0-9]+) ([0-9]+)\x03")


@dataclass(frozen=True)
class Verdicts:
    """The decision files of a run.

    Args:
        folder: the output folder.
        exact: paths of the decisions on exact copies, below the folder.
        near: paths of those on near-duplicates.
        lines: paths of those on repeated lines.
    """

    folder: Path
    exact: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def of_part(self, number: int) -> Judge:
        """What to do with the documents of one part.

        Args:
            number: of the part.

        Returns:
            A function of a document's row and the document. It answers with the document, perhaps
            without some lines, or with a drop: `exact_duplicate`, `near_duplicate`, or
            `repeated_lines` where no line is left.

        Raises:
            DataError: a file is missing or damaged.
        """
        drops = {
            **self._drops(self.near, number, "near_duplicate"),
            **self._drops(self.exact, number, "exact_duplicate"),
        }
        lines: dict[int, list[int]] = {}
        for row, line in self._read_lines(number):
            lines.setdefault(row, []).append(line)

        def judge(row: int, document: Document) -> Document | Drop:
            if row in drops:
                return drops[row]
            if row not in lines:
                return document
            text = remove_lines(document.text, lines[row]).strip("\n")
            return replace(document, text=text) if text else Drop("repeated_lines")

        return judge

    def _drops(self, paths: tuple[str, ...], number: int, reason: str) -> dict[int, Drop]:
        table = read_table([self.folder / path for path in paths], DROPS, range(number, number + 1))
        return {
            int(found["row"]): Drop(reason, f"\x02{found['keeper_part']} {found['keeper_row']}\x03")
            for found in table
        }

    def _read_lines(self, number: int) -> list[Place]:
        table = read_table([self.folder / path for path in self.lines], LINE_DROPS, range(number, number + 1))
        return list(zip(table["row"].tolist(), table["line"].tolist(), strict=True))


def find_marks(texts: list[str]) -> set[Place]:
    """The documents that drop samples point to: part and row of the copies that were kept."""
    return {(int(part), int(row)) for text in texts for part, row in _MARK.findall(text)}


def name_marks(text: str, names: Mapping[Place, str]) -> str:
    """A drop sample with the ids of the documents in place of the marks that point to them."""
    return _MARK.sub(lambda mark: names[int(mark[1]), int(mark[2])], text)
