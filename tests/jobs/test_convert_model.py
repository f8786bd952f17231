"""Models in and out: folders that both sides load, gated by what they compute."""

import argparse
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskwright.core.errors import CheckpointError, ConfigError, DataError, TokenizerError
from maskwright.jobs.convert import export_folder, import_folder
from maskwright.jobs.convert_model import find_model_form
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import export_model, load_model
from maskwright.model.layout import Layout
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def make(tokenizer, kind="roberta", **changes):
    config = EncoderConfig(
        model_type=kind,
        vocab_size=tokenizer.vocab_size,
        pad_token_id=tokenizer.pad_id,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        **{**TINY, **changes},
    )
    model = MaskedLM(config)
    initialize(model, 1, 0.1)
    return model.eval()


@pytest.fixture
def makers(monkeypatch):
    """The vocabularies that the tests of tokenizers make."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tokens")
    return importlib.import_module("vocabulary_makers")


@pytest.fixture
def bert(makers, tmp_path):
    """A folder as the authors of Chinese RoBERTa-wwm publish it: BERT with WordPiece, pickled weights."""
    folder = makers.write_bert(tmp_path / "wwm", do_lower_case=True)
    tokenizer = Tokenizer.load(folder)
    model = make(tokenizer, "bert", next_sentence=True)
    export_model(folder, model, model.config)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return model, folder


def logits_of(folder, ids):
    """What `transformers` computes with a folder alone."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def our_logits(model, ids):
    with torch.no_grad():
        return model.logits(model.encode(torch.tensor(ids), Layout([len(ids)])))


def test_a_bert_of_others(bert, tmp_path):
    model, folder = bert
    found = import_folder(folder, tmp_path / "ours")
    assert (found["model_type"], found["from"]) == ("bert", "hf")
    assert found["heads"] == "masked language model, pooler, next sentence"
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert 0 < found["largest_difference"] < 1e-5
    assert found["difference"].keys() == {"source", "written"}
    names = {path.name for path in (tmp_path / "ours").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    ids = theirs("the ferry [MASK] gulls")["input_ids"]
    assert ids == [Tokenizer.load(folder).bos_id, *ids[1:-1], Tokenizer.load(folder).eos_id]
    again, _ = load_model(tmp_path / "ours")
    assert again.config.next_sentence
    assert (our_logits(again, ids) - logits_of(tmp_path / "ours", ids)).abs().max() < 1e-5
    values = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (values["bos_token_id"], values["eos_token_id"]) == (ids[0], ids[-1])


@pytest.mark.parametrize("kind", ["xlm-roberta", "camembert"])
def test_a_model_of_sentence_pieces(makers, kind, tmp_path):
    folder = makers.write_unigram(tmp_path / "theirs")
    tokenizer = Tokenizer.load(folder)
    model = make(tokenizer, kind)
    export_model(folder, model, model.config)
    found = import_folder(folder, tmp_path / "ours")
    assert (found["model_type"], found["heads"]) == (kind, "masked language model")
    assert found["largest_difference"] < 1e-5
    again, _ = load_model(tmp_path / "ours")
    assert again.config == model.config


def write_fairseq_model(folder, tokenizer):
    """A `model.pt` of random weights, and the same weights as ours."""
    model = make(tokenizer)
    with torch.no_grad():
        model.encoder.embeddings.token_type.weight.zero_()
    embeddings, base = model.encoder.embeddings, "encoder.sentence_encoder"
    tensors = {
        f"{base}.embed_tokens.weight": embeddings.word.weight,
        f"{base}.embed_positions.weight": embeddings.position.weight,
        f"{base}.layernorm_embedding.weight": embeddings.norm.weight,
        f"{base}.layernorm_embedding.bias": embeddings.norm.bias,
        "encoder.lm_head.weight": embeddings.word.weight,
        "encoder.lm_head.bias": model.head_bias,
    }
    pairs = {
        "self_attn.out_proj": "attention_output",
        "self_attn_layer_norm": "attention_norm",
        "fc1": "intermediate",
        "fc2": "output",
        "final_layer_norm": "output_norm",
    }
    for end in ("weight", "bias"):
        for number, layer in enumerate(model.encoder.layers):
            name = f"{base}.layers.{number}"
            by_head = getattr(layer.qkv, end).unflatten(0, (2, 3, -1))
            tensors[f"{name}.self_attn.in_proj_{end}"] = by_head.transpose(0, 1).flatten(0, 2)
            for theirs, ours in pairs.items():
                tensors[f"{name}.{theirs}.{end}"] = getattr(getattr(layer, ours), end)
        tensors[f"encoder.lm_head.dense.{end}"] = getattr(model.head_dense, end)
        tensors[f"encoder.lm_head.layer_norm.{end}"] = getattr(model.head_norm, end)
    given = argparse.Namespace(
        arch="roberta_base",
        activation_fn="gelu",
        encoder_layers=2,
        encoder_attention_heads=2,
        max_positions=38,
    )
    state = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    torch.save({"args": given, "model": state}, folder / "model.pt")
    return model


@pytest.mark.parametrize("as_file", [False, True])
def test_a_roberta_of_fairseq(makers, as_file, tmp_path):
    folder, entries = makers.write_fairseq(tmp_path / "roberta.tiny")
    model = write_fairseq_model(folder, Tokenizer.load(folder))
    found = import_folder(folder / "model.pt" if as_file else folder, tmp_path / "ours")
    assert (found["model_type"], found["from"]) == ("roberta", "fairseq")
    assert found["difference"].keys() == {"written"}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    ids = theirs("the ferry and the gull")["input_ids"]
    assert [theirs.convert_ids_to_tokens(number) for number in ids] == [entries[number] for number in ids]
    assert (our_logits(model, ids) - logits_of(tmp_path / "ours", ids)).abs().max() < 1e-5


def test_sentence_pieces_of_fairseq_are_an_xlm_roberta(makers, tmp_path):
    tokenizer = makers.write_unigram(tmp_path / "tokenizer")
    (tmp_path / "xlmr").mkdir()
    write_fairseq_model(tmp_path / "xlmr", Tokenizer.load(tokenizer))
    found = import_folder(tmp_path / "xlmr", tmp_path / "ours", tokenizer=tokenizer)
    assert found["model_type"] == "xlm-roberta"


def test_a_run_and_its_export(pretrained, tmp_path):
    found = export_folder(pretrained, "hf", tmp_path / "hf")
    assert found["difference"].keys() == {"written"}
    assert found["largest_difference"] < 1e-5
    before, after = (
        load_file(folder / "model.safetensors") for folder in (pretrained / "export", tmp_path / "hf")
    )
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")("a")["input_ids"][0] == 0


def test_a_classifier(finetuned, tmp_path):
    found = export_folder(finetuned, "hf", tmp_path / "hf")
    assert found["heads"] == "classifier"
    assert found["largest_difference"] < 1e-5
    _, labels = load_model(tmp_path / "hf")
    assert labels == load_model(finetuned / "export")[1]


@pytest.fixture
def checkpoint(data_folder, tmp_path):
    """A run that was stopped: it has a checkpoint and no export yet."""
    model = make(Tokenizer.load(data_folder / "tokenizer"))
    about = {"config": f"data: {data_folder}\n", "shape": model.config.model_dump(), "versions": {}}
    tensors = {"model": model.state_dict(), "optimizer": {}}
    Checkpoints(tmp_path / "run" / "checkpoints", CheckpointConfig(), about).save(7, tensors, {}, wait=True)
    return model, tmp_path / "run"


@pytest.mark.parametrize("below", ["", "checkpoints/step-00000007"])
def test_a_checkpoint(checkpoint, below, tmp_path):
    model, run = checkpoint
    found = export_folder(run / below, "hf", tmp_path / "hf")
    assert (found["from"], found["model_type"]) == ("checkpoint", "roberta")
    again, _ = load_model(tmp_path / "hf")
    assert again.config == model.config
    for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def rewrite(run, model, **about):
    shutil.rmtree(run / "checkpoints")
    Checkpoints(run / "checkpoints", CheckpointConfig(), about).save(
        7, {"model": model.state_dict()}, {}, wait=True
    )


def test_checkpoints_that_cannot_be_exported(checkpoint, data_folder, tmp_path):
    model, run = checkpoint
    shape, out = model.config.model_dump(), tmp_path / "hf"
    with pytest.raises(CheckpointError, match="is a checkpoint of Maskwright; export it with --to hf"):
        import_folder(run, out, tokenizer=data_folder / "tokenizer")
    rewrite(run, model, config="data: x")
    with pytest.raises(CheckpointError, match="does not say the shape of its model; it is of an older"):
        export_folder(run, "hf", out)
    rewrite(run, model, config="data: x", shape={**shape, "hidden_size": "wide"})
    with pytest.raises(CheckpointError, match=r"hidden_size.*use the Maskwright that wrote it"):
        export_folder(run, "hf", out)
    rewrite(run, model, config="data: x", shape={**shape, "intermediate_size": 64})
    with pytest.raises(CheckpointError, match="shape and weights do not belong together"):
        export_folder(run, "hf", out)
    rewrite(run, model, config="steps: 3", shape=shape)
    with pytest.raises(CheckpointError, match="does not name the data it learnt from; give its tokenizer"):
        export_folder(run, "hf", out)
    assert not out.exists()
    export_folder(run, "hf", out, tokenizer=data_folder / "tokenizer")
    strange = run / "checkpoints" / "step-7a"
    (run / "checkpoints" / "step-00000007").rename(strange)
    with pytest.raises(CheckpointError, match="is not named as a checkpoint is"):
        export_folder(strange, "hf", tmp_path / "other")


def test_nothing_is_kept_of_a_model_that_computes_something_else(bert, tmp_path, monkeypatch):
    _, folder = bert
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "gelu_new"}))
    with pytest.raises(CheckpointError, match='hidden_act is "gelu_new", only "gelu" is supported'):
        import_folder(folder, tmp_path / "ours")
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "gelu"}))
    # Damage done between writing and comparing, as a faulty disk would.
    import maskwright.jobs.convert_model as module

    write = module.export_model

    def write_wrongly(target, *arguments):
        write(target, *arguments)
        tensors = load_file(target / "model.safetensors")
        tensors["cls.predictions.bias"] += 1
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(module, "export_model", write_wrongly)
    with pytest.raises(CheckpointError, match=r"logits differ by 1\.00e\+00 from those of transformers"):
        import_folder(folder, tmp_path / "ours")
    assert {path.name for path in tmp_path.iterdir()} == {"wwm"}


def test_a_tokenizer_that_does_not_fit(bert, data_folder, tmp_path):
    model, folder = bert
    with pytest.raises(TokenizerError, match="vocabulary entries, the tokenizer"):
        import_folder(folder, tmp_path / "ours", tokenizer=data_folder / "tokenizer")
    shifted = MaskedLM(model.config.replace(pad_token_id=4))
    initialize(shifted, 1, 0.1)
    export_model(folder, shifted, shifted.config)
    with pytest.raises(CheckpointError, match="pads with id 4, but its tokenizer with 0; give the tokenizer"):
        import_folder(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_empty_output_folder_is_used_and_an_occupied_one_left(bert, tmp_path):
    _, folder = bert
    (tmp_path / "empty").mkdir()
    import_folder(folder, tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    for act in (import_folder, lambda source, output: export_folder(source, "hf", output)):
        with pytest.raises(DataError, match="is not empty; choose another folder or remove it"):
            act(folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "text").read_text() == "mine"


def test_what_lies_where(pretrained, data_folder, checkpoint, tmp_path):
    _, run = checkpoint
    assert find_model_form(pretrained) == ("hf", pretrained / "export")
    assert find_model_form(pretrained / "export") == ("hf", pretrained / "export")
    assert find_model_form(run) == ("checkpoint", run / "checkpoints" / "step-00000007")
    with pytest.raises(
        CheckpointError, match="holds no model; give a Hugging Face folder, a run, a checkpoint"
    ):
        find_model_form(data_folder)
    (tmp_path / "x.pt").write_bytes(b"")
    assert find_model_form(tmp_path / "x.pt") == ("fairseq", tmp_path / "x.pt")


def test_targets_and_folders_that_do_not_go_together(pretrained, data_folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        ConfigError, match="holds data, not a model; export it with --to megatron or hf-dataset"
    ):
        export_folder(data_folder, "hf", out)
    for folder in (pretrained, pretrained / "export"):
        with pytest.raises(ConfigError, match="holds a model, not data; export it with --to hf"):
            export_folder(folder, "megatron", out)
    with pytest.raises(
        ConfigError, match="sequence_length and sentences are for data; leave them out for hf"
    ):
        export_folder(pretrained, "hf", out, sentences=True)
    with pytest.raises(ConfigError, match="tokenizer is for hf; a data folder has its own"):
        export_folder(data_folder, "megatron", out, tokenizer=data_folder / "tokenizer")
    with pytest.raises(ConfigError, match="is taken for a model, but options for data were given"):
        import_folder(pretrained, out, train=tmp_path / "train")
    with pytest.raises(ConfigError, match="--validation, --tokenizer is missing; give a model to import, or"):
        import_folder(None, out, train=tmp_path / "train")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match="is a checkpoint of fairseq; bring it in with maskwright import"
    ):
        export_folder(tmp_path / "model.pt", "hf", out)
    assert not out.exists()


def test_the_commands(pretrained, bert, tmp_path, command):
    _, folder = bert
    done = command("import", folder, "-o", tmp_path / "ours")
    assert done.code == 0
    assert "at most to transformers" in done.out
    assert "masked language model, pooler, next sentence" in done.out
    done = command("export", tmp_path / "ours", "--to", "hf", "-o", tmp_path / "again", "--json")
    assert done.code == 0
    assert done.json["largest_difference"] < 1e-5
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "again"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    done = command("export", pretrained, "--to", "megatron", "-o", tmp_path / "no")
    assert done.code == 2
    assert "export it with --to hf" in done.err
    assert command("import", "-o", tmp_path / "no").code == 2


def test_a_classifier_of_others_keeps_its_classes(makers, tmp_path):
    folder = makers.write_bert(tmp_path / "theirs", do_lower_case=True)
    tokenizer = Tokenizer.load(folder)
    model = SequenceClassifier(make(tokenizer, "bert").config, 3)
    initialize(model, 1, 0.1)
    export_model(folder, model, model.config, ["bad", "fair", "good"])
    found = import_folder(folder, tmp_path / "ours")
    assert found["heads"] == "classifier"
    assert load_model(tmp_path / "ours")[1] == ["bad", "fair", "good"]
    assert np.isfinite(found["largest_difference"])
