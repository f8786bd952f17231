"""Raw text of any size for the benchmarks of preparation, made of the real corpora in shared/data.

Copy 0 is the text as it is. In every further copy the sentences of all documents of a file are dealt anew,
so copies are neither exact nor near duplicates of each other, and have the words of the real text. Beyond
six copies that is too slow; later ones repeat the first six with a number in each document, which is as
good for everything but near-duplicates.
"""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import zstandard

CORPORA = ("enwiki-train", "books-train", "zhwiki-train")
DEALT_COPIES = 6
_SENTENCE_END = re.compile(r"(?<=[.!?。！？\n])")
SHARED = Path(__file__).parents[2] / "shared" / "data"


def make_input(folder: Path, num_bytes: int, corpora: tuple[str, ...] = CORPORA) -> list[Path]:
    """Write files `<corpus>-<copy>.jsonl.zst` until there are so many bytes of text.

    Args:
        folder: where; files that are there already are taken as they are.
        num_bytes: of JSON Lines, before compression.
        corpora: names of files below shared/data/corpora.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    made = copy = 0
    documents: dict[str, list[list[str]]] = {}
    while made < num_bytes:
        for name in corpora:
            path = folder / f"{name}-{copy:03d}.jsonl.zst"
            size = path.with_suffix(".size")
            if not size.exists():
                if copy >= DEALT_COPIES:
                    lines = _numbered(folder / f"{name}-{copy % DEALT_COPIES:03d}.jsonl.zst", copy)
                else:
                    if name not in documents:
                        documents[name] = _read(SHARED / "corpora" / f"{name}.jsonl.zst")
                    lines = _lines(documents[name], copy)
                path.write_bytes(zstandard.ZstdCompressor(level=1).compress(lines))
                size.write_text(str(len(lines)))
            made += int(size.read_text())
            found.append(path)
        copy += 1
    return found


def raw_bytes(files: list[Path]) -> int:
    """Bytes of JSON Lines in files that `make_input` made."""
    return sum(int(path.with_suffix(".size").read_text()) for path in files)


def _decompress(path: Path) -> bytes:
    with path.open("rb") as file:
        return bytes(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read())


def _read(path: Path) -> list[list[str]]:
    """The sentences of every document."""
    lines = io.BytesIO(_decompress(path))
    return [_SENTENCE_END.split(json.loads(line)["text"]) for line in lines]


def _numbered(path: Path, copy: int) -> bytes:
    return _decompress(path).replace(b', "text": "', b', "text": "%d. ' % copy)


def _lines(documents: list[list[str]], copy: int) -> bytes:
    counts = [len(document) for document in documents]
    sentences = [sentence for document in documents for sentence in document]
    if copy:
        random.Random(copy).shuffle(sentences)
    rest = iter(sentences)
    rows = (
        {"id": f"{copy}-{number}", "text": "".join(next(rest) for _ in range(count))}
        for number, count in enumerate(counts)
    )
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
