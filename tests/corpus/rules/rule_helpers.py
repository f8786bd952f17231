"""What the tests of the rules share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from maskwright.corpus.document import Document

REPOSITORY = Path(__file__).parents[3]


def document(text: str) -> Document:
    return Document(text, "d", "s")


def real_texts(name: str) -> Iterator[str]:
    """Texts of one of the real corpora, where they are present."""
    folder = Path(os.environ.get("MASKWRIGHT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder} (set MASKWRIGHT_SHARED_DATA)")
    with zstandard.open(folder / "corpora" / f"{name}.jsonl.zst", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]
