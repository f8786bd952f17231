"""What the deduplication tests share: words by plain Python, and near-duplicates from texts to drops."""

from __future__ import annotations

import unicodedata

import numpy as np
from hypothesis import strategies as st

from maskwright.corpus.dedup.bands import band_edges, write_bands
from maskwright.corpus.dedup.clusters import choose_copies, connect
from maskwright.corpus.dedup.signatures import signatures
from maskwright.corpus.dedup.tables import save_array
from maskwright.corpus.document import Document

# Letters, digits, marks, Chinese, Thai, half surrogates, separators, and characters outside the first plane.
ALPHABET = "aAbß9٣é\u0301字漢かกา\ud800 ,.\n\0İΣς\U00020000\U0001f600"
TEXTS = st.lists(st.text(ALPHABET, max_size=30), max_size=8)
ALONE = {*map(chr, range(0x4E00, 0xA000)), *"かกา\U00020000"}


def document(text: str, name: str = "d") -> Document:
    return Document(text, name, "s")


def plain_words(text: str) -> list[str]:
    """Words as the documentation defines them, one character after the other."""
    words: list[str] = []
    inside = False
    for character in text:
        category = unicodedata.category(character)
        if category[0] not in "LN" and category not in ("Mn", "Mc"):
            inside = False
            continue
        folded = character.casefold()
        folded = folded if len(folded) == 1 else character.lower()[0]
        if character in ALONE or not inside:
            words.append(folded)
        else:
            words[-1] += folded
        inside = character not in ALONE
    return words


def split_rows(rows, cuts):
    """Cut a list into parts at some places."""
    places = sorted({min(cut, len(rows)) for cut in cuts})
    return [rows[a:b] for a, b in zip([0, *places], [*places, len(rows)], strict=True)]


def places_of(parts):
    """Part and row of each row, in order."""
    return [(number, row) for number, part in enumerate(parts) for row in range(len(part))]


def find_near(folder, parts, bands, ranges, *, min_similarity, excluded=None, rule="longest", reverse=False):
    """Near-duplicates of parts of texts, as the stages find them."""
    folder.mkdir(exist_ok=True)
    files = {"bands": [], "signatures": [], "lengths": []}
    for number, texts in enumerate(parts):
        found = signatures(texts, bands.bands * bands.rows)
        write_bands(folder / f"{number}.bands", found, bands)
        save_array(folder / f"{number}.signatures.npy", found)
        save_array(folder / f"{number}.lengths.npy", np.array([len(text) for text in texts], np.int64))
        for kind, suffix in (
            ("bands", "bands"),
            ("signatures", "signatures.npy"),
            ("lengths", "lengths.npy"),
        ):
            files[kind].append((number, folder / f"{number}.{suffix}"))
    tasks = [(band, buckets) for band in range(bands.bands) for buckets in ranges]
    edges = []
    for number, (band, buckets) in enumerate(reversed(tasks) if reverse else tasks):
        pairs = band_edges(files["bands"], files["signatures"], band, buckets, min_similarity, excluded or {})
        edges.append(folder / f"edges-{number}.npy")
        save_array(edges[-1], pairs)
    return choose_copies(connect(edges), files["lengths"], rule)
