"""The gate that compares a model with `transformers`: what it accepts, and what it refuses."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskwright.core.errors import CheckpointError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import Parity, check_parity, export_model, load_model

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}


def make(kind, **changes):
    model = MaskedLM(EncoderConfig(model_type=kind, **{**SMALL, **changes}))
    initialize(model, 1, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.empty(parameter.shape).normal_(0, 0.1, generator=torch.Generator()))
    return model


def damage(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name].clone())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "bert"])
def test_small_models_agree_to_a_millionth(kind, tmp_path):
    model = make(kind)
    export_model(tmp_path, model, model.config)
    found = check_parity(model, tmp_path, special_ids=(30, 31))
    assert found.max_difference < 2e-6
    assert found.outputs == ("logits", "hidden states")
    assert found.largest > 1
    assert found.against == f"transformers {transformers.__version__}"
    assert str(found).startswith(f"{found.max_difference:.1e} at most to transformers ")


def test_every_head_is_compared(tmp_path):
    for number, (kind, changes, outputs) in enumerate(
        [
            ("bert", {"next_sentence": True}, ("logits", "next-sentence logits", "hidden states")),
            ("roberta", {"next_sentence": True}, ("logits", "pooled states", "hidden states")),
            ("bert", {"pooler": True}, ("logits", "pooled states", "hidden states")),
        ]
    ):
        model, folder = make(kind, **changes), tmp_path / str(number)
        export_model(folder, model, model.config)
        found = check_parity(model, folder)
        assert found.outputs == outputs
        assert found.max_difference < 2e-6
    classifier = SequenceClassifier(EncoderConfig(**SMALL), 2)
    initialize(classifier, 1, 0.1)
    export_model(tmp_path / "classifier", classifier, classifier.config, ["a", "b"])
    assert check_parity(classifier, tmp_path / "classifier").outputs == ("class logits", "hidden states")


def test_the_model_stays_in_its_mode_and_the_library_as_loud_as_it_was(tmp_path):
    model = make("roberta").train()
    export_model(tmp_path, model, model.config)
    before = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    check_parity(model, tmp_path)
    assert model.training
    assert transformers.utils.logging.get_verbosity() == before
    assert transformers.utils.logging.is_progress_bar_enabled() == bars


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("roberta.embeddings.position_embeddings.weight", "hidden states|logits"),
        ("roberta.encoder.layer.1.attention.self.key.weight", "hidden states|logits"),
        ("lm_head.dense.weight", "logits"),
        ("lm_head.bias", "logits"),
    ],
)
def test_another_number_is_refused_with_its_size(name, said, tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)
    damage(tmp_path, name, lambda values: values * 1.01)
    with pytest.raises(
        CheckpointError, match=rf"({said}) differ by [0-9.]+e-0[1-4] from those of transformers"
    ):
        check_parity(model, tmp_path)


def test_the_last_position_is_looked_at(tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)

    def change(values):
        values[-1, :5] += 0.5
        return values

    damage(tmp_path, "roberta.embeddings.position_embeddings.weight", change)
    with pytest.raises(CheckpointError, match=r"hidden states differ by .* at most 1e-04 is accepted"):
        check_parity(model, tmp_path)


@pytest.mark.parametrize("number", [30, 0, 89, 2])
def test_special_ids_and_both_ends_of_the_vocabulary_are_looked_at(number, tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)

    def change(values):
        values[number, :5] += 0.5
        return values

    damage(tmp_path, "roberta.embeddings.word_embeddings.weight", change)
    with pytest.raises(CheckpointError, match="differ by"):
        check_parity(model, tmp_path, special_ids=(30,))


def test_token_types_are_looked_at(tmp_path):
    model = make("bert")
    export_model(tmp_path, model, model.config)

    def change(values):
        values[1, :5] += 0.5
        return values

    damage(tmp_path, "bert.embeddings.token_type_embeddings.weight", change)
    with pytest.raises(CheckpointError, match="differ by"):
        check_parity(model, tmp_path)


def test_another_epsilon_in_the_config_is_refused(tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-2}))
    with pytest.raises(CheckpointError, match="the config does not describe these weights"):
        check_parity(model, tmp_path)


def test_numbers_that_are_none(tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)
    damage(tmp_path, "lm_head.bias", lambda values: values.fill_(float("nan")))
    said = "logits of transformers .* are NaN or infinite on a fixed batch; the weights are damaged"
    with pytest.raises(CheckpointError, match=said):
        check_parity(model, tmp_path)
    with torch.no_grad():
        model.head_bias.fill_(float("inf"))
    with pytest.raises(CheckpointError, match="logits of this model are NaN or infinite"):
        check_parity(model, tmp_path)


def test_a_folder_that_the_library_cannot_load(tmp_path):
    model = make("roberta")
    export_model(tmp_path, model, model.config)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"transformers cannot load it \(.*; mend the folder"):
        check_parity(model, tmp_path)


def test_without_the_library_nothing_is_compared(tmp_path, monkeypatch):
    model = make("roberta")
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = check_parity(model, tmp_path)
    assert found.max_difference is None
    assert str(found) == "not compared: transformers is not installed (pip install 'maskwright[hf]')"
    assert found == Parity(None, 0.0, (), found.against)


def test_a_model_of_one_position_and_few_entries(tmp_path):
    model = make("bert", max_position_embeddings=4, vocab_size=6)
    export_model(tmp_path, model, model.config)
    again, _ = load_model(tmp_path)
    assert check_parity(again, tmp_path).max_difference < 2e-6
