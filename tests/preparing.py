"""A corpus that needs every stage of a prepare run, and ways to break a run off."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tiny_world
from maskwright.corpus import Document
from maskwright.corpus.parts import read_part
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer

NOTICE = "This notice about the house and the harbour stands under every page of the almanac."
ANSWER = "exactly thirteen unusual words that nobody but a question about kettles would ever say"


def write_sources(folder: Path) -> dict[str, Any]:
    """Two sources in four files, with copies, near copies, repeated lines, and an evaluation set.

    Returns:
        Values of a recipe.
    """
    chance, names = random.Random(11), sorted(tiny_world.TOPICS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pages").mkdir()
    texts = [tiny_world.text(chance, names[number % 3], 4 + chance.randrange(6)) for number in range(150)]
    texts[21] = texts[3]  # a copy in the same file
    texts[71] = texts[4]  # and in another
    texts[92] = texts[5] + " By the way."
    texts[93] = f"{texts[93]} {ANSWER}"
    texts[7] += " <mask> and </s> are words here."
    texts = [f"{text}\n{NOTICE}" if number % 10 == 0 else text for number, text in enumerate(texts)]
    for number, rows in enumerate((texts[:50], texts[50:80], texts[80:100])):
        tiny_world.write_rows(folder / "pages" / f"{number}.jsonl", [{"text": text} for text in rows])
    (folder / "notes.txt").write_text("\n\n".join(texts[100:]))
    (folder / "quiz.jsonl").write_text(json.dumps({"question": ANSWER}) + "\n")
    return {
        **tiny_world.PREPARE,
        "corpus": {
            "sources": [
                {"path": str(folder / "pages")},
                {"path": str(folder / "notes.txt"), "split_documents": "block"},
            ],
            "deduplication": {"near": {}, "lines": {}},
            "contamination": {"evaluation": [{"path": str(folder / "quiz.jsonl")}]},
        },
        "keep_documents": True,
    }


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(monkeypatch: Any, owner: Any, name: str, after: int = 0) -> None:
    """End the process, so to speak, when a function is called once more than `after` times."""
    honest, calls = getattr(owner, name), []

    def run(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) > after:
            raise Killed
        return honest(*arguments, **options)

    monkeypatch.setattr(owner, name, run)


def clean_documents(folder: Path) -> list[Document]:
    """The documents that a run kept, where it was told to leave them."""
    paths = sorted((folder / "documents").glob("*.jsonl.zst"))
    return [document for path in paths for document in read_part(path)]


def decoded(folder: Path, split: str) -> Iterator[str]:
    """The texts of a split."""
    tokenizer, data = Tokenizer.load(folder / "tokenizer"), open_split(folder, split)
    return (tokenizer.decode(data.document(number)) for number in range(data.num_documents))
