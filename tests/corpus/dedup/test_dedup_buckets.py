from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus.dedup.buckets import (
    NUM_BUCKETS,
    bucket_ranges,
    group_equal,
    read_buckets,
    write_buckets,
)

ALL = range(NUM_BUCKETS)


def write(path, keys):
    array = np.array(keys, np.uint64).reshape(1, -1)
    write_buckets(path, array, np.arange(array.shape[1], dtype=np.uint32))


def test_reads_back_every_key_in_its_bucket(tmp_path):
    generator = np.random.default_rng(1)
    keys = generator.integers(0, 2**64, (3, 500), dtype=np.uint64)
    rows = np.arange(500, dtype=np.uint32) * 2
    write_buckets(tmp_path / "part", keys, rows)
    for group in range(3):
        seen = 0
        for buckets in (range(64), range(64, 65), range(65, NUM_BUCKETS)):
            records = read_buckets([(7, tmp_path / "part")], buckets, group=group)
            top = records.keys >> np.uint64(56)
            assert ((top >= buckets.start) & (top < buckets.stop)).all()
            assert (records.places[:, 0] == 7).all()
            assert np.array_equal(keys[group][records.places[:, 1] // 2], records.keys)
            seen += len(records.keys)
        assert seen == 500


def test_rows_stay_in_order_and_parts_are_sorted(tmp_path):
    for number in (3, 0):
        write(tmp_path / str(number), [5, 5, 5])
    records = read_buckets([(3, tmp_path / "3"), (0, tmp_path / "0")], ALL)
    assert records.places.tolist() == [[0, 0], [0, 1], [0, 2], [3, 0], [3, 1], [3, 2]]


def test_excluded_rows_are_left_out(tmp_path):
    write(tmp_path / "0", [1, 2, 3])
    write(tmp_path / "1", [4])
    excluded = {0: np.array([0, 2], np.uint32), 1: np.array([0], np.uint32), 9: np.array([1], np.uint32)}
    records = read_buckets([(0, tmp_path / "0"), (1, tmp_path / "1")], ALL, excluded=excluded)
    assert records.keys.tolist() == [2]
    assert records.places.tolist() == [[0, 1]]


def test_parts_without_records(tmp_path):
    write(tmp_path / "0", [])
    records = read_buckets([(0, tmp_path / "0")], ALL)
    assert records.keys.shape == (0,)
    assert read_buckets([], ALL, key_words=2).keys.shape == (0, 2)
    assert group_equal(records.keys).members.size == 0


def test_ranges_cover_all_buckets_once():
    for count in (0, 1, 1000, 10**6, 10**12):
        ranges = bucket_ranges(count, 10, 10_000)
        assert [bucket for buckets in ranges for bucket in buckets] == list(ALL)
    assert len(bucket_ranges(1000, 10, 10_000)) == 1
    assert len(bucket_ranges(1001, 10, 10_000)) == 2
    assert len(bucket_ranges(10**12, 10, 10_000)) == NUM_BUCKETS


KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30)


@given(KEYS)
def test_groups_are_those_of_a_dict(keys):
    expected = defaultdict(list)
    for number, key in enumerate(keys):
        expected[key].append(number)
    found = group_equal(np.array(keys, np.uint64).reshape(-1, 2))
    groups = [found.members[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)]
    assert groups == [expected[key] for key in sorted(expected) if len(expected[key]) > 1]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_keys_of_one_word(keys):
    single = group_equal(np.array(keys, np.uint64))
    double = group_equal(np.array([(key, 0) for key in keys], np.uint64).reshape(-1, 2))
    assert np.array_equal(single.members, double.members)
    assert np.array_equal(single.starts, double.starts)


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "part"
    write(path, [1, 2, 3])
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-1], "longer": data + b"0", "empty": b"", "other": b"x" * 5000}[damage])
    with pytest.raises(DataError, match=r"part: is damaged or cut off; remove it and run the same command"):
        read_buckets([(0, path)], ALL)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone: is missing; run the same command again"):
        read_buckets([(0, tmp_path / "gone")], ALL)
