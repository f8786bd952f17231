"""Token data to other trainers' files and back."""

import numpy as np
import pytest

from maskwright.core.errors import ConfigError, DataError
from maskwright.jobs.convert import export_data, import_data
from maskwright.jobs.inspect import inspect_folder
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import TokenData


def documents(folder, split):
    data = TokenData(folder, load_manifest(folder), split)
    return [data.document(number).tolist() for number in range(data.num_documents)]


def test_megatron_and_back(data_folder, tmp_path):
    found = export_data(data_folder, "megatron", tmp_path / "megatron")
    assert found["train"]["documents"] == len(documents(data_folder, "train"))
    assert {path.name for path in (tmp_path / "megatron").iterdir()} == {
        *("train.bin", "train.idx", "validation.bin", "validation.idx"),
    }
    back = import_data(
        tmp_path / "megatron" / "train",
        tmp_path / "megatron" / "validation.idx",
        data_folder / "tokenizer",
        tmp_path / "back",
    )
    assert back["train"]["tokens"] == load_manifest(data_folder).splits["train"].num_tokens
    for split in ("train", "validation"):
        assert documents(tmp_path / "back", split) == documents(data_folder, split)


def test_hf_dataset_is_read_by_the_library(data_folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    export_data(data_folder, "hf-dataset", tmp_path / "hf", sequence_length=16)
    rows = datasets.load_from_disk(str(tmp_path / "hf" / "train"))["input_ids"]
    data = TokenData(data_folder, load_manifest(data_folder), "train")
    assert len(rows) == data.num_tokens // 14
    np.testing.assert_array_equal(np.array(rows[3])[1:-1], data.tokens(3 * 14, 14))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("csv", {}, "target is 'csv', expected megatron or hf-dataset"),
        ("megatron", {"sequence_length": 16}, "sequence_length is for hf-dataset"),
        ("hf-dataset", {"sentences": True}, "sentences is for megatron"),
    ],
)
def test_options_that_do_not_go_together(data_folder, tmp_path, target, options, message):
    with pytest.raises(ConfigError, match=message):
        export_data(data_folder, target, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_occupied_folders_are_left_alone(data_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty; choose another folder or remove it"):
        export_data(data_folder, "megatron", tmp_path)
    with pytest.raises(DataError, match="is not empty; choose another folder or remove it"):
        import_data(tmp_path / "a", tmp_path / "b", data_folder / "tokenizer", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_commands(data_folder, tmp_path, command):
    done = command("export", data_folder, "--to", "megatron", "-o", tmp_path / "m", "--json")
    assert done.code == 0
    assert done.json["train"]["documents"] > 0
    options = ["--train", tmp_path / "m/train", "--validation", tmp_path / "m/validation"]
    options += ["--tokenizer", data_folder / "tokenizer", "-o", tmp_path / "back"]
    assert command("import", *options).code == 0
    assert inspect_folder(tmp_path / "back", verify=True)["files_verified"] == 5


def test_inspecting_one_shard(data_folder):
    found = inspect_folder(data_folder, shard=0, document=1, split="validation")
    assert found["shard"]["first_document"] == 0
    assert found["shard"]["checksums"] == "as in the manifest"
    assert found["document"]["number"] == 1
    lengths = found["splits"]["train"]["document_tokens"]
    assert 0 < lengths["0"] <= lengths["0.5"] <= lengths["1"]


def test_a_shard_that_is_not_there(data_folder):
    with pytest.raises(DataError, match=r"shard 99 does not exist; train has [0-9]+, from 0"):
        inspect_folder(data_folder, shard=99)
