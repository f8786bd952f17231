from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus.dedup.tables import (
    DROPS,
    LINE_DROPS,
    excluded_rows,
    load_array,
    read_table,
    save_array,
)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 3)), unique=True),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_finds_the_decisions_about_some_parts(tmp_path_factory, rows, start, length):
    folder = tmp_path_factory.mktemp("tables")
    paths = []
    for number in range(2):
        table = np.array(sorted(rows[number::2]), LINE_DROPS)
        paths.append(folder / f"{number}.npy")
        save_array(paths[-1], table)
    parts = range(start, start + length)
    found = read_table(paths, LINE_DROPS, parts)
    assert found.tolist() == sorted(row for row in rows if row[0] in parts)
    assert read_table(paths, LINE_DROPS).tolist() == sorted(rows)


def test_excluded_rows_by_part():
    table = np.array([(0, 1, 0, 0, 2), (0, 4, 0, 0, 2), (3, 0, 0, 0, 2)], DROPS)
    assert {part: rows.tolist() for part, rows in excluded_rows(table).items()} == {0: [1, 4], 3: [0]}
    assert excluded_rows(table[:0]) == {}


def test_missing_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(DataError, match=r"a\.npy: is missing; run the same command again"):
        load_array(path)
    save_array(path, np.arange(10))
    for data in (path.read_bytes()[:-8], b"not an array", b""):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.npy: is damaged \(.*\); remove it and run the same command"):
            load_array(path)
