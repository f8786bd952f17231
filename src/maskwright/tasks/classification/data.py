"""Labelled examples for classification: from a file to texts, label numbers and label names.

The names of the labels come from the training data and are handed to every later reading, so that
number 1 means the same class everywhere; a label that training never saw is refused. Texts and
labels lose the white space around them, nothing else is changed. The file layouts are in `rows.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ...core.config import nearest_name
from ...core.errors import ConfigError, DataError
from ...core.keyed import derive_key, permute
from ...core.log import get_logger
from .rows import file_kind, json_rows, read_text_file, table_rows

__all__ = ["LabelledDataset", "read_labelled", "split_dataset"]

Field = str | int
Header = Literal["auto", "yes", "no"] | bool

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
# A first row is taken for a header when its label or text column has one of these names.
_LABEL_HEADERS = {"label", "labels", "gold_label", "class", "category", "quality", "sentiment", "target"}
_TEXT_HEADERS = {"text", "sentence", "sentence1", "review", "content", "message", "title", "#1 string"}
# From this many rows on, a label seen once in row 1, or one label for every other row, looks wrong.
_ENOUGH_FOR_HEADER_DOUBT = 20
_ENOUGH_FOR_COLUMN_DOUBT = 100
_TOO_MANY_SCORES = 20


@dataclass(frozen=True)
class LabelledDataset:
    """Labelled texts, or pairs of texts.

    Args:
        texts: one a row.
        labels: index into `label_names`, one a row.
        label_names: the classes, in the order of their numbers.
        texts_b: the second text of each pair; None where there are no pairs.
        num_skipped: rows that were left out because a text was empty.
    """

    texts: list[str]
    labels: list[int]
    label_names: list[str]
    texts_b: list[str] | None = None
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, positions: Sequence[int]) -> LabelledDataset:
        """The rows at some positions, in the order given."""
        return replace(
            self,
            texts=[self.texts[position] for position in positions],
            labels=[self.labels[position] for position in positions],
            texts_b=None if self.texts_b is None else [self.texts_b[position] for position in positions],
        )


class _Row(NamedTuple):
    line: int
    label: str
    text: str
    text_b: str


class _Fields(NamedTuple):
    """The fields to read, in the order of `_Row`; `text_b` is None where there are no pairs."""

    label: Field
    text: Field
    text_b: Field | None


def read_labelled(
    path: str | Path,
    *,
    text_field: Field = "text",
    label_field: Field = "label",
    text_b_field: Field | None = None,
    header: Header = "auto",
    label_names: Sequence[str] | None = None,
    on_empty: Literal["error", "skip"] = "error",
) -> LabelledDataset:
    """Read labelled examples from a TSV, CSV or JSON lines file, perhaps compressed.

    Args:
        path: local path or any `fsspec` address.
        text_field: name of the column or key, or number of the column counted from 0.
        label_field: the same for the label.
        text_b_field: the same for the second text of a pair; None when there is none.
        header: whether the first row of a table names its columns. "auto": it does when a field
            is given by name, or when the row holds usual names such as "label" and "sentence".
        label_names: the labels of the training data; None collects them from this file, sorted,
            by value where all are numbers.
        on_empty: what to do with a row whose text is empty.

    Raises:
        ConfigError: the fields contradict each other or the header.
        DataError: the file, a row, a text or a label cannot be used; the message has the line.
    """
    fields = _Fields(label_field, text_field, text_b_field)
    if on_empty not in ("error", "skip"):
        raise ConfigError(f"on_empty is {on_empty!r}, expected 'error' or 'skip'")
    if len({field for field in fields if field is not None}) < 2 + (text_b_field is not None):
        raise ConfigError(
            f"text, second text and label must be different fields, got {fields[1:] + fields[:1]}"
        )
    content = read_text_file(path)
    if file_kind(path) == "json":
        found, maybe_header = list(_rows_from_json(path, content, fields)), False
    else:
        found, maybe_header = _rows_from_table(path, content, fields, header)
    rows, num_skipped = _usable_rows(path, found, fields, on_empty)
    if label_names is None:
        label_names = _collect_labels(path, rows)
        if maybe_header:
            _refuse_doubtful_header(path, rows)
    numbers = {name: number for number, name in enumerate(label_names)}
    return LabelledDataset(
        texts=[row.text for row in rows],
        labels=[_number_of(path, row, numbers) for row in rows],
        label_names=list(label_names),
        texts_b=None if text_b_field is None else [row.text_b for row in rows],
        num_skipped=num_skipped,
    )


def split_dataset(
    dataset: LabelledDataset, fraction: float, seed: int
) -> tuple[LabelledDataset, LabelledDataset]:
    """Hold out a share of each class, the same rows on every machine.

    Rows with the same text and label stay on one side, so that a copy of a training example is
    not mistaken for an unseen one; the share is therefore met to within the size of such a group.
    A class never leaves the first part entirely. Order within both parts is as before.

    Args:
        dataset: what to divide.
        fraction: share of the rows to hold out, between 0 and 1.
        seed: another seed holds out other rows.

    Returns:
        The rest, and the held-out part.

    Raises:
        ConfigError: the fraction is not between 0 and 1.
        DataError: there are too few rows to hold one out.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold out is {fraction}, expected a number between 0 and 1")
    groups = _groups_by_label(dataset)
    quotas = _share_out(
        Counter(dataset.labels), {label: len(found) for label, found in groups.items()}, fraction
    )
    held_out: set[int] = set()
    for label, found in groups.items():
        key = derive_key(seed, "split", dataset.label_names[label])
        count = 0
        for number in permute(key, np.arange(len(found)), len(found))[: len(found) - 1]:
            if count >= quotas[label]:
                break
            held_out.update(found[number])
            count += len(found[number])
    if not held_out:
        raise DataError(
            f"{len(dataset)} examples are too few to hold out {fraction:.0%} of them; "
            "give a file for evaluation, or hold out more"
        )
    everything = range(len(dataset))
    rest = dataset.select([position for position in everything if position not in held_out])
    return rest, dataset.select(sorted(held_out))


def _groups_by_label(dataset: LabelledDataset) -> dict[int, list[list[int]]]:
    """Positions of equal examples, as one list each, for each label in the order of its number."""
    second = dataset.texts_b or dataset.texts
    groups: dict[int, dict[tuple[str, str], list[int]]] = {label: {} for label in sorted(set(dataset.labels))}
    for position, label in enumerate(dataset.labels):
        example = (dataset.texts[position], second[position])
        groups[label].setdefault(example, []).append(position)
    return {label: list(found.values()) for label, found in groups.items()}


def _share_out(counts: Counter[int], num_groups: dict[int, int], fraction: float) -> dict[int, int]:
    """Rows to hold out of each class: the whole part of its share, then the largest remainders."""
    quotas = {label: int(count * fraction) for label, count in counts.items()}
    wanted = round(sum(counts.values()) * fraction) - sum(quotas.values())
    open_labels = [label for label in counts if num_groups[label] > 1]
    open_labels.sort(key=lambda label: (quotas[label] - counts[label] * fraction, label))
    for label in open_labels[: max(wanted, 0)]:
        quotas[label] += 1
    return quotas


def _rows_from_json(path: str | Path, content: str, fields: _Fields) -> Iterator[_Row]:
    for name in fields:
        if isinstance(name, int):
            raise ConfigError(f"{path}: field {name} is a number, but JSON lines have names; give the key")
    for line, values in json_rows(path, content):
        for name in fields:
            if name is not None and name not in values:
                hint = nearest_name(str(name), list(values))
                raise DataError(f'{path}:{line}: has no "{name}"{hint} (set text_field or label_field)')
        label = _label_text(f"{path}:{line}", str(fields.label), values[str(fields.label)])
        texts = [
            "" if name is None else _json_text(f"{path}:{line}", str(name), values[str(name)])
            for name in fields[1:]
        ]
        yield _Row(line, label, *texts)


def _label_text(place: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # some tools write 1.0 for 1
    if not isinstance(value, (str, int)):
        shown = "null" if value is None else f"a {type(value).__name__}"
        raise DataError(
            f'{place}: "{name}" is {shown}, expected a string or a whole number (set label_field)'
        )
    return str(value).strip()


def _json_text(place: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        shown = "null" if value is None else f"a {type(value).__name__}"
        raise DataError(f'{place}: "{name}" is {shown}, expected a string (set text_field)')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f'{place}: "{name}" holds half of a surrogate pair; remove it') from error
    return value.strip()


def _rows_from_table(
    path: str | Path, content: str, fields: _Fields, header: Header
) -> tuple[list[_Row], bool]:
    """Rows, and whether the first of them was taken for one without being told so."""
    table = table_rows(path, content)
    line, first = next(table)
    cells = [cell.strip() for cell in first]
    has_header = _has_header(path, cells, fields, header)
    place = f"{path}:{line}"
    label, text = _column(place, cells, fields.label), _column(place, cells, fields.text)
    text_b = None if fields.text_b is None else _column(place, cells, fields.text_b)

    def to_row(line: int, found: list[str]) -> _Row:
        second = "" if text_b is None else found[text_b].strip()
        return _Row(line, found[label].strip(), found[text].strip(), second)

    rows = [] if has_header else [to_row(line, first)]
    rows.extend(to_row(line, found) for line, found in table)
    return rows, header == "auto" and not has_header


def _has_header(path: str | Path, cells: list[str], fields: _Fields, header: Header) -> bool:
    names = [field for field in fields if isinstance(field, str)]
    if header in ("no", False):
        if names:
            raise ConfigError(
                f'{path}: field "{names[0]}" is a name, but header is no; '
                "give the number of the column, counted from 0"
            )
        return False
    if header in ("yes", True):
        return True
    if header != "auto":
        raise ConfigError(f"header is {header!r}, expected auto, yes or no")
    return bool(names) or _looks_like_header(cells, fields)


def _looks_like_header(cells: list[str], fields: _Fields) -> bool:
    def has(field: Field | None, known: set[str]) -> bool:
        return isinstance(field, int) and 0 <= field < len(cells) and cells[field].lower() in known

    return has(fields.label, _LABEL_HEADERS) or has(fields.text, _TEXT_HEADERS)


def _column(place: str, cells: list[str], field: Field) -> int:
    if isinstance(field, int):
        if not 0 <= field < len(cells):
            raise DataError(
                f"{place}: there is no column {field}, counted from 0: the row has {len(cells)}; "
                "set text_field and label_field"
            )
        return field
    if cells.count(field) > 1:
        raise DataError(f'{place}: the header names "{field}" more than once; give the column number instead')
    if field not in cells:
        raise DataError(
            f'{place}: has no column "{field}"{nearest_name(field, [_shorten(cell) for cell in cells])}; '
            "set text_field and label_field, to column numbers counted from 0 if there is no header"
        )
    return cells.index(field)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _usable_rows(
    path: str | Path, rows: list[_Row], fields: _Fields, on_empty: str
) -> tuple[list[_Row], int]:
    """Rows with a label and a text, and how many others there were."""
    if not rows:
        raise DataError(f"{path}: has a header and no rows; expected at least one")
    full = [row for row in rows if _has_text(row, fields)]
    num_empty = len(rows) - len(full)
    if not full:
        raise DataError(f"{path}: every text is empty; set text_field to the column that holds the texts")
    if num_empty:
        line = next(row.line for row in rows if not _has_text(row, fields))
        if on_empty == "error":
            raise DataError(f"{path}:{line}: the text is empty; mend the row, or set on_empty=skip")
        message = "%s: %d of %d rows have an empty text and are skipped, the first on line %d"
        get_logger(__name__).warning(message, path, num_empty, len(rows), line)
    for row in full:
        if not row.label:
            raise DataError(f"{path}:{row.line}: the label is empty; fill it in, or remove the row")
    return full, num_empty


def _has_text(row: _Row, fields: _Fields) -> bool:
    return bool(row.text) and (fields.text_b is None or bool(row.text_b))


def _refuse_doubtful_header(path: str | Path, rows: list[_Row]) -> None:
    first = rows[0]
    if len(rows) >= _ENOUGH_FOR_HEADER_DOUBT and all(row.label != first.label for row in rows[1:]):
        raise DataError(
            f'{path}:{first.line}: the label "{_shorten(first.label)}" occurs on this line only, '
            "so it may be a header; set header=yes or header=no"
        )


def _collect_labels(path: str | Path, rows: list[_Row]) -> list[str]:
    counts = Counter(row.label for row in rows)
    if len(counts) == 1:
        raise DataError(
            f'{path}: every example has the label "{rows[0].label}", and a classifier needs at least two; '
            "check label_field"
        )
    if len(rows) >= _ENOUGH_FOR_COLUMN_DOUBT and len(counts) > len(rows) / 2:
        raise DataError(
            f"{path}: {len(counts)} different labels in {len(rows)} examples, such as "
            f'"{_shorten(rows[0].label)}": this is hardly the column of labels; set label_field'
        )
    numeric = all(_NUMBER.fullmatch(label) for label in counts)
    if numeric and len(counts) > _TOO_MANY_SCORES and any(float(label) % 1 for label in counts):
        raise DataError(
            f"{path}: the labels are {len(counts)} numbers with fractions, so they are scores and not "
            "classes; scores cannot be learned here, set label_field to a column of classes"
        )
    return sorted(counts, key=lambda label: (float(label) if numeric else 0.0, label))


def _number_of(path: str | Path, row: _Row, numbers: dict[str, int]) -> int:
    if row.label not in numbers:
        hint = nearest_name(row.label, list(numbers))
        raise DataError(
            f'{path}:{row.line}: the training data has no label "{_shorten(row.label)}"{hint} '
            "(correct the label, or add examples of it to the training data)"
        )
    return numbers[row.label]
