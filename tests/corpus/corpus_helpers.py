"""What the corpus tests share: small files, and the real data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskwright.corpus import Audit, Document, SourceConfig, input_files, read_input, warn_of_ignored
from maskwright.corpus.plan import plan_inputs

REPOSITORY = Path(__file__).parents[2]


def shared_data() -> Path:
    folder = Path(os.environ.get("MASKWRIGHT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder} (set MASKWRIGHT_SHARED_DATA)")
    return folder


def read(path: Path | str | tuple[str, ...], **settings: object) -> tuple[list[Document], Audit]:
    """All documents of a source, and the account of reading it."""
    audit = Audit()
    where = path if isinstance(path, tuple) else str(path)
    source = SourceConfig.model_validate({"path": where, "name": "s", **settings})
    warn_of_ignored([source], input_files([source]))
    tasks = plan_inputs([source], split_bytes=1 << 40)
    return [document for task in tasks for document in read_input(task, source, audit)], audit


def document(text: str, name: str = "d") -> Document:
    return Document(text, name, "s")
