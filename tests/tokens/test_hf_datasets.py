"""Folders that `datasets` opens."""

import builtins
import os
import sys

import pytest
import shard_helpers
import vocabulary_makers as makers

from maskwright.core.errors import ConfigError, MissingDependencyError, OutputExistsError, StorageError
from maskwright.tokens.interchange import batches, export_hf_dataset, hf_datasets
from maskwright.tokens.shards import open_split

DOCUMENTS = [[5, 6, 7], [], [8], [9, 10], [11] * 40, [12, 13]]


@pytest.fixture(scope="module")
def tokenizer():
    return makers.byte_level()


@pytest.fixture
def data(tmp_path):
    groups = {"a": [DOCUMENTS[:3], [DOCUMENTS[3]]], "b": [DOCUMENTS[4:]]}
    return shard_helpers.data_of(tmp_path / "data", groups)


def opened(folder):
    datasets = pytest.importorskip("datasets")
    return datasets.load_from_disk(str(folder))


@pytest.mark.parity
@pytest.mark.parametrize("attention_mask", [True, False])
@pytest.mark.parametrize(("most_tokens", "file_tokens"), [(1 << 20, 1 << 20), (1, 1), (7, 20)])
def test_documents(data, tmp_path, tokenizer, monkeypatch, attention_mask, most_tokens, file_tokens):
    monkeypatch.setattr(batches, "TOKENS_PER_BATCH", most_tokens)
    monkeypatch.setattr(hf_datasets, "_TOKENS_PER_FILE", file_tokens)
    counts = export_hf_dataset(data, tmp_path / "hf", tokenizer, attention_mask=attention_mask)
    table = opened(tmp_path / "hf")
    expected = [[tokenizer.bos_id, *row, tokenizer.eos_id] for row in DOCUMENTS]
    assert table["input_ids"][:] == expected
    assert table.column_names == ["input_ids", *(["attention_mask"] if attention_mask else [])]
    if attention_mask:
        assert table["attention_mask"][:] == [[1] * len(row) for row in expected]
    assert counts == {"rows": 6, "tokens": sum(map(len, expected))}
    files = sorted(path.name for path in (tmp_path / "hf").glob("*.arrow"))
    assert files[0] == f"data-00000-of-{len(files):05d}.arrow"
    assert (len(files) > 1) == (file_tokens < 1 << 20)
    assert not list(tmp_path.glob("*.partial-*"))


@pytest.mark.parity
@pytest.mark.parametrize("most_tokens", [1, 1 << 20])
def test_windows(data, tmp_path, tokenizer, monkeypatch, most_tokens):
    monkeypatch.setattr(hf_datasets, "TOKENS_PER_BATCH", most_tokens)
    counts = export_hf_dataset(data, tmp_path / "hf", tokenizer, sequence_length=10)
    tokens = data.tokens(0, data.num_tokens).tolist()
    expected = [
        [tokenizer.bos_id, *tokens[start : start + 8], tokenizer.eos_id]
        for start in range(0, len(tokens) - 7, 8)
    ]
    assert opened(tmp_path / "hf")["input_ids"][:] == expected
    assert counts == {"rows": len(expected), "tokens": 10 * len(expected)}


@pytest.mark.parity
def test_nothing_fits(data, tmp_path, tokenizer):
    assert export_hf_dataset(data, tmp_path / "hf", tokenizer, sequence_length=500) == {
        "rows": 0,
        "tokens": 0,
    }
    assert len(opened(tmp_path / "hf")) == 0


@pytest.mark.parity
def test_texts(tmp_path, tokenizer):
    makers.write_data(tmp_path / "data", tokenizer, {"train": makers.TEXTS[:20]})
    export_hf_dataset(open_split(tmp_path / "data", "train"), tmp_path / "hf", tokenizer)
    table = opened(tmp_path / "hf")
    assert [tokenizer.decode(row[1:-1]) for row in table["input_ids"]] == makers.TEXTS[:20]
    assert table.features["input_ids"].feature.dtype == "int32"


def test_no_room_for_a_token(data, tmp_path, tokenizer):
    with pytest.raises(
        ConfigError, match="sequence_length is 2, expected at least 3: one token and its specials"
    ):
        export_hf_dataset(data, tmp_path / "hf", tokenizer, sequence_length=2)


def test_a_folder_that_exists(data, tmp_path, tokenizer):
    with pytest.raises(OutputExistsError, match="data: exists already; choose another folder or remove it"):
        export_hf_dataset(data, tmp_path / "data", tokenizer)


def test_nothing_appears_when_the_storage_refuses(data, tmp_path, tokenizer, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, os.strerror(28), str(tmp_path))

    monkeypatch.setattr(hf_datasets, "_record_batch", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        export_hf_dataset(data, tmp_path / "hf", tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_without_pyarrow(data, tmp_path, tokenizer, monkeypatch):
    honest = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "pyarrow":
            raise ImportError(name)
        return honest(name, *rest, **named)

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        MissingDependencyError, match="pyarrow is not installed, and it is needed to write datasets"
    ):
        export_hf_dataset(data, tmp_path / "hf", tokenizer)
    assert not (tmp_path / "hf").exists()
