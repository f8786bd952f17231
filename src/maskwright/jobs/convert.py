"""What others made to ours, and ours to what others read: token data, and models.

Which of the two is meant is told by the target or the arguments. Models need torch, data does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, DataError
from ..core.files import read_json
from ..core.lock import lock_folder
from ..tokens.interchange import export_hf_dataset, export_megatron, import_megatron
from ..tokens.manifest import load_manifest
from ..tokens.shards import TokenData
from ..tokens.tokenizer import Tokenizer

__all__ = ["export_data", "export_folder", "import_data", "import_folder"]


def export_folder(
    folder: Path,
    target: str,
    output: Path,
    *,
    sequence_length: int | None = None,
    sentences: bool = False,
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write a model for `transformers`, or a data folder for other trainers.

    Args:
        folder: a run, a checkpoint or a model for `hf`; else a data folder.
        target: `hf`, `megatron` or `hf-dataset`.
        output: folder to write to; must be empty or missing.
        sequence_length: as in `export_data`.
        sentences: as in `export_data`.
        tokenizer: hf: where the model's tokenizer is, if not where the run has it.

    Returns:
        What was written; for a model also how its outputs compare with those of `transformers`.

    Raises:
        ConfigError: an option does not go with the target, or the target with the folder.
        UserError: the folder cannot be read, or the output cannot be written.
    """
    if target != "hf":
        if tokenizer is not None:
            raise ConfigError("tokenizer is for hf; a data folder has its own")
        if (folder / "config.json").is_file() or (folder / "export" / "config.json").is_file():
            raise ConfigError(f"{folder}: holds a model, not data; export it with --to hf")
        return export_data(folder, target, output, sequence_length=sequence_length, sentences=sentences)
    if sequence_length is not None or sentences:
        raise ConfigError("sequence_length and sentences are for data; leave them out for hf")
    if (folder / "manifest.json").is_file() and "splits" in read_json(folder / "manifest.json"):
        raise ConfigError(f"{folder}: holds data, not a model; export it with --to megatron or hf-dataset")
    _require_empty(output)
    from .convert_model import export_model_folder

    return export_model_folder(folder, output, tokenizer)


def import_folder(
    source: Path | None,
    output: Path,
    *,
    train: Path | None = None,
    validation: Path | None = None,
    tokenizer: Path | None = None,
    closing_id: int | None = None,
    sentences: bool = False,
) -> dict[str, Any]:
    """Bring in a model, or make a data folder of two Megatron datasets.

    Args:
        source: a model of Hugging Face or fairseq; None for data.
        output: the folder to make; must be empty or missing.
        train: as in `import_data`.
        validation: as in `import_data`.
        tokenizer: what made the ids of the data; for a model only if it is not beside it.
        closing_id: as in `import_data`.
        sentences: as in `import_data`.

    Returns:
        What was read; for a model also how its outputs compare with those of `transformers`.

    Raises:
        ConfigError: a model and data are asked for at once, or neither.
        UserError: the source cannot be used, or the output cannot be written.
    """
    data = {"--train": train, "--validation": validation}
    if source is not None:
        if sentences or closing_id is not None or any(data.values()):
            raise ConfigError(
                f"{source}: is taken for a model, but options for data were given; import one at a time"
            )
        _require_empty(output)
        from .convert_model import import_model

        return import_model(source, output, tokenizer)
    missing = [name for name, value in {**data, "--tokenizer": tokenizer}.items() if value is None]
    if train is None or validation is None or tokenizer is None:
        raise ConfigError(
            f"{', '.join(missing)} is missing; give a model to import, or --train, --validation and "
            "--tokenizer of Megatron datasets"
        )
    return import_data(train, validation, tokenizer, output, closing_id=closing_id, sentences=sentences)


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
