"""The fast encoder, kept within bounds of memory and threads.

`gigatoken` encodes byte-level BPE tens of times faster than the reference because it remembers every
word it has seen. That memory would grow with the text for ever, so after some tens of millions of
ids the encoder is made anew; this costs about a tenth of a second and bounds the memory at a few
hundred megabytes on text without a word that repeats. What is remembered never changes the ids.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EncodedBatch", "FastEncoder", "is_single_threaded", "use_one_thread"]

EncodedBatch = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]

# Ids after which what was remembered is dropped: some 150 MB of English, less of text without spaces.
MAX_REMEMBERED_IDS = 1 << 25
_one_thread = False


def use_one_thread() -> None:
    """Let this process encode on the calling thread only: for workers that share a machine.

    Worker processes of `multiprocessing` do so unasked; those of other runners call this first.
    """
    global _one_thread
    _one_thread = True
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the reference looks at it on every call
    os.environ.setdefault("RAYON_NUM_THREADS", "1")


def is_single_threaded() -> bool:
    """Whether this process encodes on one thread: asked for, or a worker of a runner."""
    is_worker = multiprocessing.parent_process() is not None or os.environ.get("RAYON_NUM_THREADS") == "1"
    if not _one_thread and is_worker:
        use_one_thread()
    return _one_thread


class FastEncoder:
    """Encodes byte-level BPE, forgetting in time.

    Args:
        definition: content of a `tokenizer.json`. Its special tokens are left out, so that their
            texts are ordinary text.

    Raises:
        Exception: of any kind, where the vocabulary is not supported.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        added = [token for token in definition["added_tokens"] if not token.get("special")]
        self._definition = json.dumps({**definition, "added_tokens": added, "post_processor": None})
        self._renew()

    def _renew(self) -> None:
        import gigatoken

        self._encoder = gigatoken.Tokenizer.from_json(self._definition)
        self._num_remembered = 0

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        ids: list[int] = self._encoder.encode(text).tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> EncodedBatch:
        """Ids of some texts laid end to end (uint32), and how many each has (int64)."""
        import awkward

        encoded = self._encoder.encode_batch(list(texts), parallel=not is_single_threaded())
        ids = np.asarray(awkward.to_numpy(awkward.flatten(encoded)), dtype=np.uint32)
        counts = np.asarray(awkward.to_numpy(awkward.num(encoded)), dtype=np.int64)
        self._num_remembered += len(ids)
        if self._num_remembered >= MAX_REMEMBERED_IDS:
            self._renew()
        return ids, counts
