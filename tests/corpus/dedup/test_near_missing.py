"""Near-duplicates without the library that signs texts."""

import sys

import pytest

from maskwright.core.errors import MissingDependencyError
from maskwright.corpus.dedup.signatures import signatures


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingDependencyError, match=r"rensa is not installed.*maskwright\[corpus\]"):
        signatures(["some words"])
