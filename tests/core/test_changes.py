"""Which settings of two runs differ."""

from maskwright.core.changes import differences


def test_differences_of_trees():
    before = {"a": 1, "b": {"c": [1], "d": None}, "format_version": 1}
    after = {"a": 1, "b": {"c": [2]}, "e": {}, "format_version": 2}
    assert differences(before, after) == {"b.c": ([1], [2]), "e": (None, {})}
