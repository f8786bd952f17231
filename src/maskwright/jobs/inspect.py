"""Look into a folder that Maskwright made: data, a run, or an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError
from ..tokens.manifest import Manifest, load_manifest
from ..tokens.shards import TokenData, verify_folder
from ..tokens.split_statistics import split_statistics
from ..tokens.tokenizer import Tokenizer
from ..tokens.words import open_words

__all__ = ["inspect_folder"]


def inspect_folder(
    folder: Path,
    *,
    document: int | None = None,
    shard: int | None = None,
    split: str = "train",
    verify: bool = False,
    words: bool = False,
    flight: bool = False,
) -> dict[str, Any]:
    """Describe a folder.

    Args:
        folder: a data folder, a run's folder, or a Hugging Face folder.
        document: for a data folder, number of a document to decode; within `shard` if that is given.
        shard: for a data folder, number of a shard to describe and to compare with its checksums.
        split: for a data folder, the split it is in.
        verify: for a data folder, compare every checksum.
        words: also cut the document into words, as masking of whole words sees them.
        flight: for a run, what each process did last, as `summarize_flight` says.

    Returns:
        What was found; `kind` is data, run, flight, or model.

    Raises:
        ShardError: the data folder is damaged.
        TokenizerError: words are asked for, and the vocabulary does not tell them.
        DataError: nothing that is known lies there, or there are no flight recorders that can be read.
        ConfigError: words are asked for, but no document.
    """
    if words and document is None:
        raise ConfigError("words are asked for without a document; add its number (--document)")
    if flight:
        from ..training.watching import summarize_flight

        return {"kind": "flight", "folder": str(folder), **summarize_flight(folder)}
    if (folder / "manifest.json").is_file():
        return _data(folder, document, shard, split, verify=verify, words=words)
    if (folder / "metrics.jsonl").is_file():
        return _run(folder)
    if (folder / "config.json").is_file():
        from ..model.hf import load_encoder_config

        return {"kind": "model", "folder": str(folder), **load_encoder_config(folder)[1]}
    raise DataError(f"{folder}: holds no prepared data, run or model; check the path")


def _data(
    folder: Path, document: int | None, shard: int | None, split: str, *, verify: bool, words: bool
) -> dict[str, Any]:
    manifest = load_manifest(folder)
    result: dict[str, Any] = {
        "kind": "data",
        "folder": str(folder),
        "fingerprint": manifest.fingerprint,
        "vocab_size": manifest.tokenizer.vocab_size,
        "dtype": manifest.dtype,
        "splits": {name: _split(folder, manifest, name) for name in manifest.splits},
    }
    if verify:
        result["files_verified"] = verify_folder(folder)
    data = TokenData(folder, manifest, split) if shard is not None or document is not None else None
    first = 0
    if data is not None and shard is not None:
        result["shard"], first = _shard(data, shard)
    if data is not None and document is not None:
        result["document"] = _document(data, first + document, words=words)
    return result


def _document(data: TokenData, number: int, *, words: bool) -> dict[str, Any]:
    tokenizer, ids = Tokenizer.load(data.folder / "tokenizer"), data.document(number)
    found: dict[str, Any] = {
        "split": data.split,
        "number": number,
        "num_tokens": len(ids),
        "text": tokenizer.decode(ids),
    }
    if words:
        start, stop = data.document_range(number)
        starts = open_words(data, tokenizer).starts(np.arange(start, stop, dtype=np.int64))
        pieces = np.split(ids, np.flatnonzero(np.diff(starts)) + 1)
        found["words"] = [tokenizer.decode(piece) for piece in pieces if len(piece)]
    return found


def _split(folder: Path, manifest: Manifest, name: str) -> dict[str, Any]:
    part = manifest.splits[name]
    found = split_statistics(TokenData(folder, manifest, name))
    return {
        "documents": part.num_documents,
        "tokens": part.num_tokens,
        "shards": len(part.shards),
        "bytes_per_token": part.num_text_bytes / max(1, part.num_tokens),
        "sources": found["sources"],
        "document_tokens": found["document_tokens"],
    }


def _shard(data: TokenData, number: int) -> tuple[dict[str, Any], int]:
    """What a shard holds, its checksums compared, and the number of its first document."""
    if not 0 <= number < len(data.shards):
        raise DataError(f"shard {number} does not exist; {data.split} has {len(data.shards)}, from 0")
    shard = data.shards[number]
    shard.check(data.folder, content=True)
    first = int(data.document_ends[number]) - shard.num_documents
    found = {
        "split": data.split,
        "number": number,
        "source": shard.source,
        "first_document": first,
        "documents": shard.num_documents,
        "tokens": shard.num_tokens,
        "files": [file.path for file in shard.files],
        "checksums": "as in the manifest",
    }
    return found, first


def _run(folder: Path) -> dict[str, Any]:
    newest: dict[str, dict[str, Any]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            newest[record["kind"]] = record
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # a crash may have torn a line
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    return {
        "kind": "run",
        "folder": str(folder),
        "finished": (folder / "summary.json").exists() or (folder / "evaluation.json").exists(),
        "checkpoints": checkpoints,
        **{f"last_{kind}": record for kind, record in newest.items()},
    }
