"""What deduplication decided about a part, and the names that go into samples later."""

import numpy as np
import pytest

from maskwright.core.errors import DataError
from maskwright.corpus import Document, Drop
from maskwright.corpus.dedup.tables import DROPS, LINE_DROPS, save_array
from maskwright.corpus.stages import Verdicts, find_marks, name_marks


def document(text="first\nsecond\nthird"):
    return Document(text, "d", "s")


@pytest.fixture
def verdicts(tmp_path):
    save_array(tmp_path / "exact-0.npy", np.array([(0, 1, 0, 0, 2), (2, 4, 0, 3, 2)], DROPS))
    save_array(tmp_path / "exact-1.npy", np.array([(0, 2, 0, 0, 2)], DROPS))
    save_array(tmp_path / "near.npy", np.array([(0, 1, 9, 9, 2), (0, 5, 1, 7, 2)], DROPS))
    lines = [(0, 3, 0), (0, 3, 2), (0, 4, 0), (0, 4, 1), (0, 4, 2), (0, 5, 1), (1, 0, 0)]
    save_array(tmp_path / "lines.npy", np.array(lines, LINE_DROPS))
    return Verdicts(tmp_path, ("exact-0.npy", "exact-1.npy"), ("near.npy",), ("lines.npy",))


def test_each_row_has_its_verdict(verdicts):
    judge = verdicts.of_part(0)
    assert judge(0, document()) == document()
    assert judge(1, document()) == Drop("exact_duplicate", "\x020 0\x03")
    assert judge(2, document()) == Drop("exact_duplicate", "\x020 0\x03")
    assert judge(3, document()) == document("second")
    assert judge(4, document()) == Drop("repeated_lines")
    assert judge(5, document()) == Drop("near_duplicate", "\x021 7\x03")


def test_parts_do_not_see_each_other(verdicts):
    assert verdicts.of_part(1)(1, document()) == document()
    assert verdicts.of_part(1)(0, document()) == document("second\nthird")
    assert verdicts.of_part(2)(4, document()) == Drop("exact_duplicate", "\x020 3\x03")
    assert verdicts.of_part(7)(0, document()) == document()


def test_without_decisions_everything_stays(tmp_path):
    assert Verdicts(tmp_path).of_part(0)(0, document()) == document()


def test_a_decision_file_that_is_gone(verdicts, tmp_path):
    (tmp_path / "near.npy").unlink()
    with pytest.raises(DataError, match=r"near\.npy: is missing; run the same command again"):
        verdicts.of_part(0)


def test_marks_become_names():
    samples = ["s:1: \x020 3\x03: text", "s:2: other text 0 3", "s:3: \x0212 4\x03: text"]
    assert find_marks(samples) == {(0, 3), (12, 4)}
    named = [name_marks(sample, {(0, 3): "s:9", (12, 4): "s:8"}) for sample in samples]
    assert named == ["s:1: s:9: text", "s:2: other text 0 3", "s:3: s:8: text"]
