from __future__ import annotations

import dataclasses
import pickle

import pytest

import maskwright.corpus
from maskwright.corpus.document import Document, Drop, utf8_length


def test_documents_are_frozen_and_travel_to_other_processes():
    document = Document("text", "id", "source", {"package": "p"})
    assert pickle.loads(pickle.dumps(document)) == document
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.text = "other"  # type: ignore[misc]


def test_documents_do_not_share_meta_by_default():
    assert Document("a", "1", "s").meta == {}
    assert Document("a", "1", "s").meta is not Document("b", "2", "s").meta


def test_a_drop_has_a_reason_and_a_detail():
    assert Drop("too_short", "3 characters") == Drop(reason="too_short", detail="3 characters")


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("abc", 3), ("é", 2), ("字", 3), ("😀", 4), ("\ud800", 3)]
)
def test_length_in_bytes(text, size):
    assert utf8_length(text) == size


def test_exported_names_exist_and_are_sorted():
    names = maskwright.corpus.__all__
    assert all(hasattr(maskwright.corpus, name) for name in names)
    assert len(set(names)) == len(names)


def test_reading_text_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, maskwright.corpus, maskwright.corpus.local_docs; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
