from __future__ import annotations

import numpy as np
import pytest

from maskwright.core.errors import DataError
from maskwright.corpus.dedup import bands as module
from maskwright.corpus.dedup.bands import (
    Bands,
    band_edges,
    band_keys,
    choose_bands,
    meeting_probability,
    probability_curve,
    write_bands,
)
from maskwright.corpus.dedup.tables import save_array

ALL = range(256)


def test_chooses_the_longest_bands_that_still_meet():
    assert choose_bands(128, 0.8) == Bands(16, 8)
    for num_perm in (16, 64, 100, 128, 256):
        for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
            bands, rows = choose_bands(num_perm, threshold)
            assert bands * rows <= num_perm
            assert meeting_probability(Bands(bands, rows), threshold) >= 0.9
            longer = Bands(num_perm // (rows + 1), rows + 1)
            assert longer.bands == 0 or meeting_probability(longer, threshold) < 0.9
    assert choose_bands(128, 0.001) == Bands(128, 1)
    assert choose_bands(128, 1.0) == Bands(1, 128)


def test_the_curve_is_the_formula():
    curve = probability_curve(Bands(16, 8))
    assert len(curve) == 21
    assert curve[0] == [0.0, 0.0]
    assert curve[-1] == [1.0, 1.0]
    assert curve[16] == [0.8, round(1 - (1 - 0.8**8) ** 16, 6)]
    assert [point for _, point in curve] == sorted(point for _, point in curve)


def test_pairs_meet_as_often_as_the_curve_says():
    generator = np.random.default_rng(3)
    bands = Bands(16, 8)
    left = generator.integers(0, 2**32, (4000, 128), dtype=np.uint32)
    for alike in (0.6, 0.7, 0.8):
        right = np.where(generator.random(left.shape) < alike, left, left + np.uint32(1))
        met = (band_keys(left, bands) == band_keys(right, bands)).any(axis=0).mean()
        expected = meeting_probability(bands, alike)
        assert abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / len(left))


def test_keys_see_every_place_of_their_band_and_no_other():
    row = np.arange(12, dtype=np.uint32)[None]
    before = band_keys(row, Bands(3, 4))[:, 0]
    for place in range(12):
        changed = row.copy()
        changed[0, place] += 1
        differs = band_keys(changed, Bands(3, 4))[:, 0] != before
        assert differs.tolist() == [place // 4 == band for band in range(3)]


def write(folder, rows, bands):
    """Two parts; the first has one row more."""
    files = [], []
    half = (len(rows) + 1) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        files[0].append((number, folder / f"{number}.bands"))
        files[1].append((number, folder / f"{number}.npy"))
        write_bands(files[0][-1][1], part, bands)
        save_array(files[1][-1][1], part)
    return files


def test_leaders_take_what_is_like_them_and_the_rest_goes_on(tmp_path):
    # All five meet in band 0. 0 and 3 agree in all places, 1 and 4 in three of four, 2 with nobody.
    rows = np.array([[5, 1, 1, 1], [5, 2, 2, 2], [5, 3, 3, 3], [5, 1, 1, 1], [5, 2, 2, 9]], np.uint32)
    files = write(tmp_path, rows, Bands(4, 1))
    place = [0, 1, 2, 1 << 32, 1 << 32 | 1]
    found = band_edges(*files, 0, ALL, 0.75, {})
    assert found.tolist() == [[place[0], place[3]], [place[1], place[4]]]
    assert band_edges(*files, 0, ALL, 0.8, {}).tolist() == [[place[0], place[3]]]
    # In band 1, row 2 meets nobody and the others meet as they are alike.
    assert sorted(band_edges(*files, 1, ALL, 0.75, {}).tolist()) == [
        [place[0], place[3]],
        [place[1], place[4]],
    ]
    excluded = {0: np.array([0], np.uint32)}
    assert band_edges(*files, 0, ALL, 0.75, excluded).tolist() == [[place[1], place[4]]]


def test_leaders_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LEADERS", 1)
    rows = np.array([[5, 1], [5, 2], [5, 2], [5, 1]], np.uint32)
    files = write(tmp_path, rows, Bands(2, 1))
    assert band_edges(*files, 0, ALL, 1, {}).tolist() == [[0, 1 << 32 | 1]]


def test_little_memory_changes_nothing_but_the_cut_of_giant_groups(tmp_path, monkeypatch):
    generator = np.random.default_rng(5)
    rows = generator.integers(0, 3, (60, 6), dtype=np.uint32)
    files = write(tmp_path, rows, Bands(2, 3))
    groups = {key: np.flatnonzero((rows[:, :3] == key).all(axis=1)) for key in map(tuple, rows[:, :3])}
    largest = max(map(len, groups.values()))
    whole = sorted(band_edges(*files, 0, ALL, 0.6, {}).tolist())
    monkeypatch.setattr(module, "_CHUNK_BYTES", largest * 6 * 4)
    assert sorted(band_edges(*files, 0, ALL, 0.6, {}).tolist()) == whole
    # One group of copies, cut into pieces of three: all are still joined to its first member.
    files = write(tmp_path, np.ones((9, 6), np.uint32), Bands(2, 3))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * 6 * 4)
    assert band_edges(*files, 0, ALL, 1, {})[:, 0].tolist() == [0] * 8


def test_documents_without_words_meet_nobody(tmp_path):
    rows = np.full((4, 4), 0xFFFFFFFF, np.uint32)
    rows[3] = 1
    files = write(tmp_path, rows, Bands(2, 2))
    assert band_edges(*files, 0, ALL, 0.1, {}).size == 0


def test_no_parts_and_missing_signatures(tmp_path):
    assert band_edges([], [], 0, ALL, 0.5, {}).shape == (0, 2)
    files = write(tmp_path, np.ones((4, 4), np.uint32), Bands(2, 2))
    (tmp_path / "1.npy").unlink()
    with pytest.raises(DataError, match=r"1\.npy: is missing; run the same command again"):
        band_edges(*files, 0, ALL, 0.5, {})
