"""Hugging Face folders: every form of weight file, older names, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskwright.core.errors import CheckpointError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import export_model, load_encoder_config, load_model, load_tensors, load_weights

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 34,
}
WEIGHTS = "model.safetensors"


def make(kind, **changes):
    model = MaskedLM(EncoderConfig(model_type=kind, **{**SMALL, **changes}))
    initialize(model, 1, 0.1)
    with torch.no_grad():
        model.head_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
    return model.eval()


@pytest.fixture(scope="module", params=["roberta", "bert"])
def kind(request):
    return request.param


@pytest.fixture
def exported(kind, tmp_path):
    model = make(kind)
    export_model(tmp_path, model, model.config)
    return model, tmp_path


def change_weights(folder, change):
    """Rewrite the weights of a folder."""
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def assert_loads(model, folder):
    again, _ = load_model(folder)
    assert again.config == model.config
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after), name


class TestForms:
    """The same weights in whichever form a folder has them."""

    def test_pickled(self, exported):
        model, folder = exported
        torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
        (folder / WEIGHTS).unlink()
        assert_loads(model, folder)

    @pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
    def test_in_shards(self, exported, name):
        model, folder = exported
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        stem, _, suffix = name.partition(".")
        files = {key: f"{stem}-{number % 3}.{suffix}" for number, key in enumerate(sorted(tensors))}
        for file in set(files.values()):
            part = {key: tensors[key] for key in files if files[key] == file}
            (save_file if suffix == "safetensors" else torch.save)(part, folder / file)
        (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
        assert load_tensors(folder).keys() == tensors.keys()
        assert_loads(model, folder)
        (folder / f"{stem}-1.{suffix}").unlink()
        with pytest.raises(CheckpointError, match=rf"names {stem}-1\.{suffix}, which is not there; get"):
            load_model(folder)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("[]", "is no index of weights"),
            ('{"weight_map": 3}', "is no index of weights"),
            ('{"weight_map": {"a": "../x.bin"}}', r"names '\.\./x\.bin', expected files beside it"),
            ("{", "is no index of weights .*is not valid JSON"),
        ],
    )
    def test_an_index_that_is_none(self, tmp_path, content, said):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CheckpointError, match=said):
            load_tensors(tmp_path)

    def test_a_pickle_that_would_run_code(self, exported):
        _, folder = exported
        (folder / WEIGHTS).unlink()
        torch.save({"weights": print}, folder / "pytorch_model.bin")
        said = (
            r"pytorch_model\.bin: holds an object of print beside tensors and plain values.*save the weights"
        )
        with pytest.raises(CheckpointError, match=said):
            load_model(folder)

    def test_a_pickle_that_is_none(self, exported):
        _, folder = exported
        (folder / WEIGHTS).unlink()
        (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and nothing more")
        with pytest.raises(
            CheckpointError, match=r"pytorch_model\.bin: cannot be read .*export the model again"
        ):
            load_model(folder)

    def test_a_pickle_of_something_else(self, exported):
        _, folder = exported
        (folder / WEIGHTS).unlink()
        torch.save([1, 2], folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="holds a list, expected tensors"):
            load_model(folder)

    def test_half_precision_is_widened(self, exported):
        model, folder = exported
        change_weights(folder, lambda tensors: {name: value.half() for name, value in tensors.items()})
        again, _ = load_model(folder)
        for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
            assert after.dtype == torch.float32
            assert torch.equal(before.half().float(), after)


class TestNames:
    """Names that other releases and tools gave to the same tensors."""

    def test_gamma_and_beta(self, exported):
        model, folder = exported

        def old(name):
            return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )

        change_weights(folder, lambda tensors: {old(name): value for name, value in tensors.items()})
        assert any(name.endswith("gamma") for name in load_tensors(folder))
        assert_loads(model, folder)

    def test_buffers_and_the_tied_decoder(self, exported, kind):
        model, folder = exported
        head = "lm_head" if kind == "roberta" else "cls.predictions"

        def add(tensors):
            words = tensors[f"{kind}.embeddings.word_embeddings.weight"]
            return {
                **tensors,
                f"{kind}.embeddings.position_ids": torch.arange(34)[None],
                f"{head}.decoder.weight": words.clone(),
                f"{head}.decoder.bias": tensors[f"{head}.bias"].clone(),
            }

        change_weights(folder, add)
        assert_loads(model, folder)

    def test_the_bias_under_the_name_of_the_decoder(self, exported, kind):
        model, folder = exported
        head = "lm_head" if kind == "roberta" else "cls.predictions"
        change_weights(
            folder,
            lambda tensors: {
                n.replace(f"{head}.bias", f"{head}.decoder.bias"): v for n, v in tensors.items()
            },
        )
        assert_loads(model, folder)

    def test_a_bare_encoder(self, exported, kind):
        model, folder = exported
        change_weights(
            folder,
            lambda tensors: {n.removeprefix(f"{kind}."): v for n, v in tensors.items() if n.startswith(kind)},
        )
        classifier = SequenceClassifier(model.config, 2)
        load_weights(classifier, folder, encoder_only=True)
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(classifier.encoder.state_dict()[name], value)
        with pytest.raises(CheckpointError, match=r"has no tensor .* with the right head"):
            load_model(folder)

    @pytest.mark.parametrize("end", ["weight", "bias"])
    def test_output_weights_of_their_own(self, exported, kind, end):
        model, folder = exported
        head = "lm_head" if kind == "roberta" else "cls.predictions"
        size = (90, 32) if end == "weight" else (90,)
        change_weights(folder, lambda tensors: {**tensors, f"{head}.decoder.{end}": torch.ones(size)})
        with pytest.raises(
            CheckpointError, match=rf"decoder\.{end} is not the same as .*use a model with tied"
        ):
            load_model(folder)
        load_weights(SequenceClassifier(model.config, 2), folder, encoder_only=True)


class TestHeads:
    """Heads that a file has and a model has not, and the other way round."""

    def test_a_file_without_them(self, exported, caplog):
        model, folder = exported
        wider = MaskedLM(model.config.replace(next_sentence=True))
        initialize(wider, 8, 0.1)
        pooler = wider.pooler.weight.clone()
        load_weights(wider, folder)
        assert torch.equal(wider.pooler.weight, pooler)
        assert torch.equal(wider.head_bias, model.head_bias)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [line.partition(": ")[2] for line in said] == [
            "has no pooler; it starts from new weights",
            "has no nsp_output; it starts from new weights",
        ]

    def test_a_model_without_them(self, kind, tmp_path, caplog):
        model = make(kind, next_sentence=True)
        export_model(tmp_path, model, model.config)
        config, _ = load_encoder_config(tmp_path)
        assert not config.has_pooler
        narrow = MaskedLM(config)
        load_weights(narrow, tmp_path)
        assert torch.equal(narrow.head_bias, model.head_bias)
        assert not caplog.records
        again, _ = load_model(tmp_path)
        assert again.config == model.config.replace(pooler=True)

    def test_a_bert_classifier_begins_with_the_pooler(self, tmp_path):
        model = make("bert", next_sentence=True)
        export_model(tmp_path, model, model.config)
        classifier = SequenceClassifier(model.config, 2)
        initialize(classifier, 8, 0.1)
        output = classifier.head_output.weight.clone()
        load_weights(classifier, tmp_path, encoder_only=True)
        assert torch.equal(classifier.head_dense.weight, model.pooler.weight)
        assert torch.equal(classifier.head_output.weight, output)

    def test_a_roberta_classifier_does_not(self, tmp_path):
        model = make("roberta", pooler=True)
        export_model(tmp_path, model, model.config)
        classifier = SequenceClassifier(model.config, 2)
        initialize(classifier, 8, 0.1)
        dense = classifier.head_dense.weight.clone()
        load_weights(classifier, tmp_path, encoder_only=True)
        assert torch.equal(classifier.head_dense.weight, dense)


class TestConfig:
    """What a `config.json` leaves out, and what it says that we do not compute."""

    def test_what_is_left_out_is_what_transformers_takes(self, kind, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        config, _ = load_encoder_config(tmp_path)
        found = (config.type_vocab_size, config.layer_norm_eps, config.max_position_embeddings)
        assert found == (2, 1e-12, 512)
        assert (config.vocab_size, config.pad_token_id) == ((50_265, 1) if kind == "roberta" else (30_522, 0))

    @pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "bert"])
    def test_defaults_are_those_of_the_library(self, kind, tmp_path):
        transformers = pytest.importorskip("transformers")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        config, _ = load_encoder_config(tmp_path)
        theirs = transformers.AutoConfig.from_pretrained(tmp_path)
        for name in EncoderConfig.model_fields.keys() - {"pooler", "next_sentence"}:
            assert getattr(config, name) == getattr(theirs, name), name

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"hidden_act": "gelu_new"}, 'hidden_act is "gelu_new", only "gelu" is supported'),
            (
                {"position_embedding_type": "relative_key"},
                'position_embedding_type is "relative_key", only "absolute" is supported',
            ),
            ({"is_decoder": True}, "is_decoder is true, only false is supported"),
            ({"is_encoder_decoder": True}, "is_encoder_decoder is true, only false is supported"),
            ({"add_cross_attention": True}, "add_cross_attention is true, only false is supported"),
            ({"tie_word_embeddings": False}, "tie_word_embeddings is false, only true is supported"),
            ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': .1.}, only {} is supported"),
        ],
    )
    def test_what_is_not_computed(self, exported, values, said):
        _, folder = exported
        change_config(folder, **values)
        with pytest.raises(CheckpointError, match=said):
            load_encoder_config(folder)

    def test_what_changes_nothing(self, exported):
        model, folder = exported
        change_config(
            folder, position_embedding_type="absolute", pruned_heads={}, is_decoder=False, use_cache=True
        )
        assert load_encoder_config(folder)[0] == model.config

    def test_the_ids_of_the_tokenizer(self, kind, tmp_path):
        model = make(kind)
        export_model(tmp_path, model, model.config.replace(bos_token_id=7, eos_token_id=8))
        values = json.loads((tmp_path / "config.json").read_text())
        assert (values["bos_token_id"], values["eos_token_id"]) == (7, 8)
        assert "pooler" not in values
        assert load_encoder_config(tmp_path)[0].eos_token_id == 8

    def test_architectures(self, tmp_path):
        for kind, changes, expected in (
            ("roberta", {}, "RobertaForMaskedLM"),
            ("xlm-roberta", {}, "XLMRobertaForMaskedLM"),
            ("camembert", {}, "CamembertForMaskedLM"),
            ("bert", {}, "BertForMaskedLM"),
            ("bert", {"next_sentence": True}, "BertForPreTraining"),
            ("roberta", {"next_sentence": True}, "RobertaForMaskedLM"),
        ):
            model = make(kind, **changes)
            export_model(tmp_path, model, model.config)
            assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [expected]
