"""Look into a folder that Maskwright made: data, a run, or an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..tokens.manifest import load_manifest
from ..tokens.shards import TokenData, verify_folder
from ..tokens.tokenizer import Tokenizer

__all__ = ["inspect_folder"]


def inspect_folder(
    folder: Path, *, document: int | None = None, split: str = "train", verify: bool = False
) -> dict[str, Any]:
    """Describe a folder.

    Args:
        folder: a data folder, a run's folder, or a Hugging Face folder.
        document: for a data folder, number of a document to decode.
        split: for a data folder, the split it is in.
        verify: for a data folder, compare every checksum.

    Returns:
        What was found; `kind` is data, run, or model.

    Raises:
        ShardError: the data folder is damaged.
        DataError: nothing that is known lies there.
    """
    if (folder / "manifest.json").is_file():
        return _data(folder, document, split, verify)
    if (folder / "metrics.jsonl").is_file():
        return _run(folder)
    if (folder / "config.json").is_file():
        from ..model.hf import load_encoder_config

        return {"kind": "model", "folder": str(folder), **load_encoder_config(folder)[1]}
    raise DataError(f"{folder}: holds no prepared data, run or model; check the path")


def _data(folder: Path, document: int | None, split: str, verify: bool) -> dict[str, Any]:
    manifest = load_manifest(folder)
    result: dict[str, Any] = {
        "kind": "data",
        "folder": str(folder),
        "fingerprint": manifest.fingerprint,
        "vocab_size": manifest.tokenizer.vocab_size,
        "dtype": manifest.dtype,
        "splits": {
            name: {
                "documents": part.num_documents,
                "tokens": part.num_tokens,
                "shards": len(part.shards),
                "bytes_per_token": part.num_text_bytes / max(1, part.num_tokens),
            }
            for name, part in manifest.splits.items()
        },
    }
    if verify:
        result["files_verified"] = verify_folder(folder)
    if document is not None:
        ids = TokenData(folder, manifest, split).document(document)
        result["document"] = {
            "split": split,
            "number": document,
            "num_tokens": len(ids),
            "text": Tokenizer.load(folder / "tokenizer").decode(ids),
        }
    return result


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
