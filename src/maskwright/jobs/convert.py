"""Token data to the files of other trainers, and theirs to ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, DataError
from ..core.lock import lock_folder
from ..tokens.interchange import export_hf_dataset, export_megatron, import_megatron
from ..tokens.manifest import load_manifest
from ..tokens.shards import TokenData
from ..tokens.tokenizer import Tokenizer

__all__ = ["export_data", "import_data"]


def export_data(
    folder: Path,
    target: str,
    output: Path,
    *,
    sequence_length: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Write every split of a data folder in another form.

    Args:
        folder: a data folder.
        target: `megatron` for `OUTPUT/<split>.bin` and `.idx`; `hf-dataset` for folders
            `OUTPUT/<split>` that `datasets.load_from_disk` reads.
        output: folder to write to; must be empty or missing.
        sequence_length: hf-dataset: tokens of a row, specials included; None writes whole documents.
        sentences: megatron: make each sentence a sequence.

    Returns:
        What was written, by split.

    Raises:
        ConfigError: an option does not go with the target.
        DataError: the output folder is occupied.
        ShardError: the data is missing or damaged.
        StorageError: the storage refused.
    """
    if target not in ("megatron", "hf-dataset"):
        raise ConfigError(f"target is {target!r}, expected megatron or hf-dataset")
    if sequence_length is not None and target != "hf-dataset":
        raise ConfigError("sequence_length is for hf-dataset; leave it out for megatron")
    if sentences and target != "megatron":
        raise ConfigError("sentences is for megatron; leave it out for hf-dataset")
    manifest = load_manifest(folder)
    _require_empty(output)
    found: dict[str, Any] = {"output": str(output)}
    with lock_folder(output):
        for split in manifest.splits:
            data = TokenData(folder, manifest, split)
            data.verify()
            if target == "megatron":
                found[split] = export_megatron(data, output / split, sentences=sentences)
            else:
                tokenizer = Tokenizer.load(folder / "tokenizer")
                found[split] = export_hf_dataset(
                    data, output / split, tokenizer, sequence_length=sequence_length
                )
    return found


def import_data(
    train: Path,
    validation: Path,
    tokenizer: Path,
    output: Path,
    *,
    closing_id: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Make a data folder of two Megatron datasets.

    Args:
        train: path of the training dataset, with or without `.bin` or `.idx`.
        validation: path of the validation dataset.
        tokenizer: what made the ids.
        output: the data folder; must be empty or missing.
        closing_id: id that closes documents there; the tokenizer's own `</s>` by default.
        sentences: take each sequence as a sentence.

    Returns:
        Counts of tokens and documents by split.

    Raises:
        DataError: a dataset cannot be read, or the output folder is occupied.
        TokenizerError: the tokenizer cannot be used.
        StorageError: the storage refused.
    """
    _require_empty(output)
    with lock_folder(output):
        manifest = import_megatron(
            {"train": train, "validation": validation},
            output,
            Tokenizer.load(tokenizer),
            closing_id=closing_id,
            sentences=sentences,
        )
    counts = {
        name: {"documents": split.num_documents, "tokens": split.num_tokens}
        for name, split in manifest.splits.items()
    }
    return {"output": str(output), **counts, "fingerprint": manifest.fingerprint}


def _require_empty(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: is not empty; choose another folder or remove it")
