from __future__ import annotations

import numpy as np
from dedup_helpers import ALPHABET, plain_words, split_rows
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.dedup.buckets import bucket_ranges
from maskwright.corpus.dedup.lines import remove_lines, repeated_lines, write_lines
from maskwright.corpus.dedup.tables import LINE_DROPS, read_table, save_array


def bare(line):
    """A line's letters and digits, by plain Python."""
    joined = "".join(plain_words(line))
    return "".join("0" if character.isdecimal() else character for character in joined)


def repeated_by_set(parts, min_characters, excluded):
    seen, drops = set(), []
    for part, texts in enumerate(parts):
        for row, text in enumerate(texts):
            if row in excluded.get(part, ()):
                continue
            for number, line in enumerate(text.split("\n")):
                key = bare(line)
                if len(key) >= min_characters:
                    if key in seen:
                        drops.append((part, row, number))
                    seen.add(key)
    return drops


def repeated_by_files(folder, parts, ranges, min_characters, excluded):
    files = []
    for number, texts in enumerate(parts):
        files.append((number, folder / f"part-{number}"))
        write_lines(files[-1][1], texts, min_characters)
    tables = []
    for number, buckets in enumerate(ranges):
        tables.append(folder / f"drops-{number}.npy")
        save_array(tables[-1], repeated_lines(files, buckets, excluded))
    return read_table(tables, LINE_DROPS).tolist()


@given(
    st.lists(st.text(ALPHABET + "\n\n", max_size=12), max_size=12),
    st.sets(st.integers(0, 12), max_size=3),
    st.sampled_from([1, 8]),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_repeated_lines_are_those_of_a_set(tmp_path_factory, texts, cuts, num_tasks, min_characters, out):
    parts = split_rows(texts, cuts)
    excluded = {0: np.array([out], np.uint32)}
    found = repeated_by_files(
        tmp_path_factory.mktemp("lines"), parts, bucket_ranges(num_tasks, 1, 1), min_characters, excluded
    )
    expected = repeated_by_set(parts, min_characters, {0: [out]})
    assert found == expected


def test_a_notice_goes_and_short_lines_stay(tmp_path):
    notice = "All rights reserved, 2024."
    parts = [[f"First text.\n{notice}\nYes."], [f"{notice.upper()}\nSecond text.\nYes."]]
    drops = repeated_by_files(tmp_path, parts, [range(256)], 10, {})
    assert drops == [(1, 0, 0)]
    assert remove_lines(parts[1][0], [line for _, _, line in drops]) == "Second text.\nYes."


def test_counts_the_lines_it_writes(tmp_path):
    assert write_lines(tmp_path / "part", ["one\n\ntwo", "no"], 3) == 2


def test_remove_lines():
    assert remove_lines("a\nb\nc", []) == "a\nb\nc"
    assert remove_lines("a\nb\nc", np.array([0, 2])) == "b"
    assert remove_lines("a\n", {0}) == ""
    assert remove_lines("a", [0]) == ""
