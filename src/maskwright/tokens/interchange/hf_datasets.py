"""A split as a folder that `datasets.load_from_disk` opens, without the `datasets` library.

The folder holds Arrow streams, the description of the columns and the list of files. Writing runs
at the speed of the disk and keeps a few million tokens in memory.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import ConfigError, MissingDependencyError, OutputExistsError
from ...core.files import TEMPORARY_MARK, publish_folder, storage_errors, write_json
from ...core.fingerprint import fingerprint
from ..shards import TokenData
from ..tokenizer import Tokenizer
from .batches import TOKENS_PER_BATCH, document_batches

__all__ = ["export_hf_dataset"]

_TOKENS_PER_FILE = 1 << 27
_Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def export_hf_dataset(
    data: TokenData,
    folder: Path,
    tokenizer: Tokenizer,
    *,
    sequence_length: int | None = None,
    attention_mask: bool = False,
) -> dict[str, int]:
    """Write a split as a dataset with the column `input_ids`.

    Args:
        data: the split.
        folder: where; must not exist.
        tokenizer: gives the first and the last id of a row.
        sequence_length: tokens of a row. Documents laid end to end, each closed by `</s>`, are cut into
            windows of two less, between `<s>` and `</s>`; the last incomplete one is left out. None
            writes one whole document a row, between `<s>` and `</s>`.
        attention_mask: also write a column of ones, for trainers that ask for it.

    Returns:
        `rows` and `tokens` written.

    Raises:
        ConfigError: `sequence_length` leaves no room for a token.
        OutputExistsError: the folder exists.
        ShardError: a shard cannot be read.
        StorageError: the storage refused.
        MissingDependencyError: `pyarrow` is not installed.
    """
    if sequence_length is not None and sequence_length < 3:
        raise ConfigError(
            f"sequence_length is {sequence_length}, expected at least 3: one token and its specials"
        )
    if folder.exists():
        raise OutputExistsError(f"{folder}: exists already; choose another folder or remove it")
    rows = (
        _documents(data, tokenizer) if sequence_length is None else _windows(data, tokenizer, sequence_length)
    )
    temporary = folder.with_name(f"{folder.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")
    try:
        with storage_errors(folder):
            temporary.mkdir(parents=True)
            written = _write_files(temporary, rows, attention_mask)
        name = fingerprint([data.manifest.fingerprint, data.split, sequence_length, attention_mask])
        _describe(temporary, written["files"], _features(attention_mask), name[:16])
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"rows": written["rows"], "tokens": written["tokens"]}


def _documents(data: TokenData, tokenizer: Tokenizer) -> Iterator[_Rows]:
    """Ids of whole documents with their specials, and how many each has."""
    for batch in document_batches(data):
        starts = np.cumsum(batch.counts) - batch.counts
        yield np.insert(batch.ids, starts, tokenizer.bos_id), batch.counts + 1


def _windows(data: TokenData, tokenizer: Tokenizer, sequence_length: int) -> Iterator[_Rows]:
    """Windows of equal length with their specials."""
    size = sequence_length - 2
    step = max(1, TOKENS_PER_BATCH // size) * size
    for start in range(0, data.num_tokens // size * size, step):
        count = min(step, data.num_tokens // size * size - start)
        ids = np.empty((count // size, sequence_length), np.int64)
        ids[:, 0], ids[:, -1] = tokenizer.bos_id, tokenizer.eos_id
        ids[:, 1:-1] = data.tokens(start, count).reshape(-1, size)
        yield ids.reshape(-1), np.full(len(ids), sequence_length, np.int64)


def _write_files(folder: Path, rows: Iterator[_Rows], attention_mask: bool) -> dict[str, int]:
    """Write Arrow streams, a new one when the last is full; always one at least."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "corpus", "write datasets of Hugging Face") from error

    columns = [("input_ids", pyarrow.list_(pyarrow.int32()))]
    if attention_mask:
        columns.append(("attention_mask", pyarrow.list_(pyarrow.int8())))
    schema = pyarrow.schema(columns)
    total = {"files": 0, "rows": 0, "tokens": 0}
    batch = next(rows, None)
    while batch is not None or not total["files"]:
        path = folder / f"part-{total['files']:05d}"
        room = _TOKENS_PER_FILE
        with path.open("wb") as file, pyarrow.ipc.new_stream(file, schema) as stream:
            while batch is not None and room > 0:
                stream.write_batch(_record_batch(pyarrow, schema, *batch))
                room -= len(batch[0])
                total["rows"] += len(batch[1])
                total["tokens"] += len(batch[0])
                batch = next(rows, None)
        total["files"] += 1
    for number in range(total["files"]):
        (folder / f"part-{number:05d}").rename(folder / _file_name(number, total["files"]))
    return total


def _record_batch(
    pyarrow: Any, schema: Any, ids: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> Any:
    offsets = pyarrow.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    values = [ids.astype(np.int32), np.ones(len(ids), np.int8)]
    arrays = [
        pyarrow.ListArray.from_arrays(offsets, pyarrow.array(column))
        for column, _ in zip(values, schema.names, strict=False)
    ]
    return pyarrow.record_batch(arrays, schema=schema)


def _file_name(number: int, files: int) -> str:
    return f"data-{number:05d}-of-{files:05d}.arrow"


def _features(attention_mask: bool) -> dict[str, Any]:
    """Columns in the words of `datasets`; `Sequence` is understood by old and new versions."""
    types = {"input_ids": "int32"} | ({"attention_mask": "int8"} if attention_mask else {})
    return {
        name: {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"}
        for name, dtype in types.items()
    }


def _describe(folder: Path, files: int, features: dict[str, Any], name: str) -> None:
    write_json(
        folder / "dataset_info.json", {"citation": "", "description": "", "features": features, "license": ""}
    )
    state: dict[str, Any] = {
        "_data_files": [{"filename": _file_name(number, files)} for number in range(files)],
        "_fingerprint": name,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)
