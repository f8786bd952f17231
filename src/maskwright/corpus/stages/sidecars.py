"""What deduplication has to know about the documents of a part, kept beside the part.

    <part>.digests      16 bytes a document, for exact copies
    <part>.bands        keys of the bands of each signature, <part>.signatures.npy the signatures,
    <part>.lengths.npy  the lengths in characters, for near-duplicates
    <part>.lines        keys of lines, for repeated lines

Memory: what is written, and a few megabytes of text; with repeated lines the text of the part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.inventory import FileEntry, describe_file
from ..dedup.bands import choose_bands, write_bands
from ..dedup.config import DeduplicationConfig
from ..dedup.exact import digest_array, write_digests
from ..dedup.lines import write_lines
from ..dedup.signatures import signatures
from ..dedup.tables import save_array
from ..document import Document

__all__ = ["Sidecars"]

_BATCH_CHARACTERS = 1 << 20


class Sidecars:
    """Collects and writes them for one part.

    Args:
        config: what deduplication will be done.
    """

    def __init__(self, config: DeduplicationConfig) -> None:
        self._config = config
        self._digests: list[bytes] = []
        self._lengths: list[int] = []
        self._signatures: list[npt.NDArray[np.uint32]] = []
        self._batch: list[str] = []
        self._batch_characters = 0
        self._texts: list[str] = []

    def add(self, document: Document, digest: bytes) -> None:
        """Note one document, the next of the part, with the digest of its text."""
        if self._config.exact:
            self._digests.append(digest)
        if self._config.lines is not None:
            self._texts.append(document.text)
        if self._config.near is not None:
            self._lengths.append(len(document.text))
            self._batch.append(document.text)
            self._batch_characters += len(document.text)
            if self._batch_characters >= _BATCH_CHARACTERS:
                self._sign()

    def write(self, folder: Path, stem: str) -> tuple[dict[str, Any], list[FileEntry]]:
        """Write everything.

        Args:
            folder: the output folder.
            stem: what the names of the files begin with, below the output folder.

        Returns:
            Counts (`lines`), and the files.

        Raises:
            StorageError: the storage refused.
        """
        names: list[str] = []
        counts: dict[str, Any] = {}
        if self._config.exact:
            write_digests(folder / f"{stem}.digests", digest_array(self._digests))
            names.append(f"{stem}.digests")
        if self._config.near is not None:
            self._sign()
            found = np.concatenate(self._signatures)
            bands = choose_bands(self._config.near.num_perm, self._config.near.threshold)
            write_bands(folder / f"{stem}.bands", found, bands)
            save_array(folder / f"{stem}.signatures.npy", found)
            save_array(folder / f"{stem}.lengths.npy", np.array(self._lengths, np.int64))
            names += [f"{stem}.bands", f"{stem}.signatures.npy", f"{stem}.lengths.npy"]
        if self._config.lines is not None:
            least = self._config.lines.min_line_characters
            counts["lines"] = write_lines(folder / f"{stem}.lines", self._texts, least)
            names.append(f"{stem}.lines")
        return counts, [describe_file(folder, name) for name in names]

    def _sign(self) -> None:
        near = self._config.near
        assert near is not None
        if self._batch or not self._signatures:
            self._signatures.append(signatures(self._batch, near.num_perm, near.ngram))
        self._batch, self._batch_characters = [], 0
