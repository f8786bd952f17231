"""The last step of a run: counts, audit and report beside the shards, then the manifest.

The manifest is written last, so a folder that has one is whole. What only the stages needed is
removed after it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from ...core.files import TEMPORARY_MARK, storage_errors, write_json
from ...tokens.manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from ...tokens.mixture import resolve_mixture
from ...tokens.shard_writing import token_dtype, write_array
from ...tokens.tokenizer import Tokenizer
from ..prepare_config import MixtureConfig, PrepareConfig
from .account import make_audit, make_timings
from .cutting import identify_words
from .encode import SPLITS
from .pipeline import Prepared
from .vocabulary import open_tokenizer

__all__ = ["INPUTS", "clear_work", "discard", "publish"]

INPUTS = "inputs.json"
_MANIFEST = "manifest.json"


def discard(folder: Path) -> None:
    """Take away what says that a folder is whole, before anything in it is made again."""
    with storage_errors(folder):
        (folder / _MANIFEST).unlink(missing_ok=True)


def publish(
    config: PrepareConfig, folder: Path, made: Prepared, request: Any, *, workers: int | None, runner: str
) -> Manifest:
    """Make the folder whole.

    Args:
        config: of the run.
        folder: the output folder.
        made: what the stages gave.
        request: names the settings and the inputs, for the next run to know them again.
        workers: how many tasks ran at once, for the record.
        runner: who ran them, for the record.

    Returns:
        The manifest, as written.

    Raises:
        DataError: a split got no documents.
        ConfigError: the mixture does not fit the sources.
        StorageError: the storage refused.
    """
    tokenizer = open_tokenizer(folder)
    splits = {split: _split(split, made.encoded) for split in SPLITS}
    kept = sum(split.num_documents for split in splits.values())
    for name, split in splits.items():
        if not split.num_documents:
            raise DataError(
                f"{folder}: the {name} split got none of {kept} documents; "
                "add documents or change validation_share"
            )
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size),
        dtype=token_dtype(tokenizer.vocab_size),
        splits=splits,
        repeats=_repeats(config.mixture, splits["train"]),
        token_counts=write_array(folder, "token_counts.bin", _token_counts(folder, tokenizer, made)),
        provenance=_provenance(config, made),
    )
    audit = make_audit(config, folder, made, manifest)
    write_json(folder / "audit.json", audit)
    write_json(folder / "timings.json", make_timings(made, workers, runner))
    write_json(folder / INPUTS, request)
    _remove_strangers(folder, manifest, made)
    save_manifest(folder, manifest)
    return manifest


def _split(name: str, encoded: Iterable[Mapping[str, Any]]) -> Split:
    """The shards of a split that hold documents."""
    shards = [Shard.model_validate(result["shards"][name]) for result in encoded]
    num_text_bytes = sum(result["text_bytes"][name] for result in encoded)
    return Split(
        shards=tuple(shard for shard in shards if shard.num_documents), num_text_bytes=num_text_bytes
    )


def _repeats(config: MixtureConfig, train: Split) -> dict[str, float]:
    if config.weights is None and config.temperature is None and config.epochs is None:
        return {}
    tokens = train.tokens_by_source
    weights = None if config.weights is None else {name: config.weights.get(name, 0.0) for name in tokens}
    epochs = None if config.epochs is None else {n: e for n, e in config.epochs.items() if n in tokens}
    return resolve_mixture(tokens, weights=weights, temperature=config.temperature, epochs=epochs)


def _token_counts(folder: Path, tokenizer: Tokenizer, made: Prepared) -> Any:
    total = np.zeros(tokenizer.vocab_size, np.int64)
    for result in made.encoded:
        total += np.fromfile(folder / result["token_counts"], "<i8")
    return total


def _provenance(config: PrepareConfig, made: Prepared) -> dict[str, Any]:
    """Where the text came from: no clock, no path of this machine."""
    files: dict[str, int] = {}
    for source, _ in {(task.source, task.file.label): None for task in made.inputs}:
        files[source] = files.get(source, 0) + 1
    return {
        "sources": {source.label: {"files": files.get(source.label, 0)} for source in config.corpus.sources},
        "tokenizer": config.tokenizer.model_dump(mode="json", exclude={"path"}),
        **({"words": words} if (words := identify_words(config.words)) else {}),
    }


def _remove_strangers(folder: Path, manifest: Manifest, made: Prepared) -> None:
    """Remove shards and documents of an earlier run that are none of this one, and what a kill cut off."""
    known = {file.path for split in manifest.splits.values() for s in split.shards for file in s.files}
    known |= {f"documents/part-{number:05d}.jsonl.zst" for number in range(len(made.encoded))}
    with storage_errors(folder):
        for name in (*SPLITS, "documents"):
            for path in sorted((folder / name).glob("*")):
                if f"{name}/{path.name}" not in known:
                    path.unlink()
        for path in (*folder.glob(f"*{TEMPORARY_MARK}*"), *folder.glob(f"*/*{TEMPORARY_MARK}*")):
            path.unlink()


def clear_work(folder: Path) -> None:
    """Remove what only the stages needed."""
    with storage_errors(folder):
        if (folder / "work").exists():
            shutil.rmtree(folder / "work")
