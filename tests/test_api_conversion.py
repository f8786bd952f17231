"""The verbs in Python that bring models and data in and out, and look into them."""

import json

import numpy as np
import pytest

import maskwright
from maskwright.core.errors import ConfigError


def test_a_model_goes_out_and_comes_in(finetuned, tmp_path):
    found = maskwright.export(str(finetuned), to="hf", output=tmp_path / "out")
    assert (found["model_type"], found["heads"]) == ("roberta", "classifier")
    found = maskwright.import_(tmp_path / "out", output=str(tmp_path / "in"), tokenizer=str(tmp_path / "out"))
    assert found["from"] == "hf"
    texts = ["The cook boils the onion.", "The ferry"]
    expected = maskwright.load(finetuned).probabilities(texts)
    assert np.array_equal(maskwright.load(tmp_path / "in").probabilities(texts), expected)


def test_data_goes_out_and_comes_in(data_folder, tmp_path):
    maskwright.export(data_folder, to="megatron", output=str(tmp_path / "out"))
    found = maskwright.import_(
        train=tmp_path / "out" / "train",
        validation=str(tmp_path / "out" / "validation"),
        tokenizer=data_folder / "tokenizer",
        output=tmp_path / "in",
    )
    splits = json.loads((data_folder / "manifest.json").read_text())["splits"]
    assert found["train"]["tokens"] == sum(shard["num_tokens"] for shard in splits["train"]["shards"])
    maskwright.export(tmp_path / "in", to="hf-dataset", output=tmp_path / "rows", sequence_length=16)
    assert (tmp_path / "rows" / "train").is_dir()


def test_what_does_not_belong_together_is_refused(finetuned, data_folder, tmp_path):
    with pytest.raises(ConfigError, match="holds a model, not data; export it with --to hf"):
        maskwright.export(finetuned, to="megatron", output=tmp_path / "out")
    with pytest.raises(ConfigError, match="tokenizer is for hf; a data folder has its own"):
        maskwright.export(data_folder, to="megatron", output=tmp_path / "out", tokenizer=data_folder)
    with pytest.raises(ConfigError, match="is taken for a model, but options for data were given"):
        maskwright.import_(finetuned, output=tmp_path / "out", sentences=True)
    with pytest.raises(ConfigError, match="--train, --validation, --tokenizer is missing; give a model"):
        maskwright.import_(output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_words_of_a_document(data_folder):
    found = maskwright.inspect(data_folder, document=3, words=True)["document"]
    assert "".join(found["words"]) == found["text"]
    assert len(found["words"]) > 5
    with pytest.raises(ConfigError, match="words are asked for without a document"):
        maskwright.inspect(data_folder, words=True)
