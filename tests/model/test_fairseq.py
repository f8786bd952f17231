"""fairseq's checkpoints: made here of a random model of `transformers`, by names written down anew."""

import argparse
import sys
import types

import pytest
import torch

from maskwright.core.errors import CheckpointError
from maskwright.model.fairseq import load_fairseq
from maskwright.model.layout import Layout

transformers = pytest.importorskip("transformers")

LAYERS, WIDTH, HEADS, INNER, ENTRIES, POSITIONS = 3, 48, 4, 80, 60, 20


@pytest.fixture(scope="module")
def reference():
    config = transformers.RobertaConfig(
        vocab_size=ENTRIES,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )
    model = transformers.RobertaForMaskedLM(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.2 if parameter.dim() == 1 else 0, 0.2, generator=generator)
        model.roberta.embeddings.token_type_embeddings.weight.zero_()
    return model


def tensors_of(reference, *, base="decoder", joined=False, norm="emb_layer_norm"):
    """The tensors under the names that fairseq gives them."""
    state = {}
    encoder = f"{base}.sentence_encoder"

    def put(name, module):
        state[f"{name}.weight"], state[f"{name}.bias"] = module.weight.detach(), module.bias.detach()

    embeddings = reference.roberta.embeddings
    state[f"{encoder}.embed_tokens.weight"] = embeddings.word_embeddings.weight.detach()
    state[f"{encoder}.embed_positions.weight"] = embeddings.position_embeddings.weight.detach()
    put(f"{encoder}.{norm}", embeddings.LayerNorm)
    for number, layer in enumerate(reference.roberta.encoder.layer):
        name = f"{encoder}.layers.{number}"
        attention = layer.attention.self
        if joined:
            parts = (attention.query, attention.key, attention.value)
            state[f"{name}.self_attn.in_proj_weight"] = torch.cat([part.weight.detach() for part in parts])
            state[f"{name}.self_attn.in_proj_bias"] = torch.cat([part.bias.detach() for part in parts])
        else:
            put(f"{name}.self_attn.k_proj", attention.key)
            put(f"{name}.self_attn.v_proj", attention.value)
            put(f"{name}.self_attn.q_proj", attention.query)
        put(f"{name}.self_attn.out_proj", layer.attention.output.dense)
        put(f"{name}.self_attn_layer_norm", layer.attention.output.LayerNorm)
        put(f"{name}.fc1", layer.intermediate.dense)
        put(f"{name}.fc2", layer.output.dense)
        put(f"{name}.final_layer_norm", layer.output.LayerNorm)
    head = reference.lm_head
    put(f"{base}.lm_head.dense", head.dense)
    put(f"{base}.lm_head.layer_norm", head.layer_norm)
    state[f"{base}.lm_head.weight"] = head.decoder.weight.detach()
    state[f"{base}.lm_head.bias"] = head.bias.detach()
    return {name: tensor.clone() for name, tensor in state.items()}


def arguments(**changes):
    return argparse.Namespace(
        **{
            "arch": "roberta_base",
            "task": "masked_lm",
            "activation_fn": "gelu",
            "encoder_layers": LAYERS,
            "encoder_embed_dim": WIDTH,
            "encoder_ffn_embed_dim": INNER,
            "encoder_attention_heads": HEADS,
            "max_positions": POSITIONS,
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "untie_weights_roberta": False,
            **changes,
        }
    )


def write(path, tensors, args=None, **more):
    torch.save({"args": args or arguments(), "model": tensors, **more}, path)
    return path


def largest_difference(reference, model):
    lengths = [POSITIONS, 3, 11]
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, ENTRIES, (length,), generator=generator) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    with torch.no_grad():
        expected = reference(ids, attention_mask=(ids != 1).long()).logits[ids != 1]
        ours = model.logits(model.encode(torch.cat(rows), Layout(lengths)))
    return (ours - expected).abs().max().item()


@pytest.mark.parity
@pytest.mark.parametrize(
    "names",
    [
        {},
        {"joined": True},
        {"base": "encoder"},
        {"base": "encoder", "norm": "layernorm_embedding"},
    ],
    ids=["published", "joined", "renamed", "newest"],
)
def test_logits_are_equal_for_every_layout_of_names(reference, names, tmp_path):
    model = load_fairseq(write(tmp_path / "model.pt", tensors_of(reference, **names)))
    assert largest_difference(reference, model) <= 1e-5
    config = model.config
    assert (config.num_attention_heads, config.max_length, config.layer_norm_eps) == (HEADS, POSITIONS, 1e-5)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.2)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)


@pytest.mark.parity
@pytest.mark.parametrize("as_mapping", [False, True])
def test_the_later_layout_of_a_checkpoint(reference, as_mapping, tmp_path):
    given = vars(arguments(arch=None, _name="roberta_base"))
    settings = given if as_mapping else argparse.Namespace(**given)
    checkpoint = {
        "args": None,
        "cfg": {"_name": None, "model": settings, "task": {"_name": "masked_lm"}},
        "model": tensors_of(reference, base="encoder"),
        "optimizer_history": [{"num_updates": 5}],
    }
    torch.save(checkpoint, tmp_path / "model.pt")
    assert largest_difference(reference, load_fairseq(tmp_path / "model.pt")) <= 1e-5


@pytest.mark.parity
def test_a_training_checkpoint_with_its_meters_in_the_oldest_format(reference, tmp_path, monkeypatch):
    """The meters are classes of fairseq, which is not installed; nothing of them is run."""
    package, module = types.ModuleType("fairseq"), types.ModuleType("fairseq.meters")

    class AverageMeter:
        def __init__(self):
            self.total = 3.0

    AverageMeter.__module__, AverageMeter.__qualname__ = "fairseq.meters", "AverageMeter"
    module.AverageMeter = AverageMeter
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fairseq", package)
        patch.setitem(sys.modules, "fairseq.meters", module)
        checkpoint = {
            "args": arguments(),
            "model": tensors_of(reference),
            "extra_state": {"train_meters": {"loss": AverageMeter()}, "val_loss": 2.5},
        }
        torch.save(checkpoint, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert largest_difference(reference, load_fairseq(tmp_path / "model.pt")) <= 1e-5


@pytest.mark.parity
def test_half_precision_and_what_is_left_out(reference, tmp_path, caplog):
    tensors = {name: tensor.half() for name, tensor in tensors_of(reference).items()}
    tensors["decoder.sentence_encoder.version"] = torch.tensor([2.0])
    tensors["classification_heads.mnli.dense.weight"] = torch.ones(3, WIDTH)
    model = load_fairseq(write(tmp_path / "model.pt", tensors))
    assert model.head_bias.dtype == torch.float32
    assert largest_difference(reference, model) < 0.1
    assert "its classification heads (mnli) are left out" in caplog.text


def test_the_same_form_for_xlm_roberta(reference, tmp_path):
    path = write(tmp_path / "model.pt", tensors_of(reference), arguments(arch="xlmr_base"))
    assert load_fairseq(path, "xlm-roberta").config.model_type == "xlm-roberta"


class Harmful:
    """Would run a command if it were unpickled."""

    def __reduce__(self):
        return print, ("harm",)


def test_an_object_that_would_run_code(reference, tmp_path, capsys):
    path = write(tmp_path / "model.pt", tensors_of(reference), task_state=Harmful())
    with pytest.raises(CheckpointError, match="holds an object of print beside tensors and plain values"):
        load_fairseq(path)
    assert "harm" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_fn": "gelu_accurate"}, "activation_fn is 'gelu_accurate', only 'gelu' is supported"),
        ({"encoder_learned_pos": False}, "encoder_learned_pos is False, only True is supported"),
        ({"untie_weights_roberta": True}, "untie_weights_roberta is True, only False is supported"),
        ({"encoder_layers_to_keep": "0,2"}, "encoder_layers_to_keep is '0,2', only None is supported"),
        ({"arch": "bart_large"}, 'holds a "bart_large", expected a RoBERTa'),
        ({"encoder_layers": 12}, "encoder_layers is 12, but its tensors have 3; arguments and weights"),
        ({"encoder_embed_dim": 64}, "encoder_embed_dim is 64, but its tensors have 48"),
        ({"encoder_ffn_embed_dim": 64}, "encoder_ffn_embed_dim is 64, but its tensors have 80"),
        ({"max_positions": 512}, "max_positions is 512, but its tensors have 20"),
        ({"encoder_attention_heads": None}, "num_attention_heads.* is None.*describe no RoBERTa"),
        ({"encoder_attention_heads": 7}, "hidden_size 48 is not a multiple of num_attention_heads 7"),
    ],
)
def test_arguments_that_we_do_not_compute(reference, changes, said, tmp_path):
    path = write(tmp_path / "model.pt", tensors_of(reference), arguments(**changes))
    with pytest.raises(CheckpointError, match=said):
        load_fairseq(path)


BASE = "decoder.sentence_encoder"


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        (
            f"{BASE}.layer_norm.weight",
            torch.ones(WIDTH),
            r"layer_norm\.weight, which RoBERTa has no place for",
        ),
        (f"{BASE}.segment_embeddings.weight", torch.ones(2, WIDTH), "which RoBERTa has no place for"),
        (f"{BASE}.layers.0.adapter.weight", torch.ones(2, WIDTH), "which RoBERTa has no place for"),
        ("decoder.lm_head.other.weight", torch.ones(2, WIDTH), "which RoBERTa has no place for"),
        (
            "decoder.lm_head.weight",
            torch.ones(ENTRIES, WIDTH),
            r"lm_head\.weight is not the same as the word",
        ),
        ("decoder.lm_head.bias", torch.ones(3), r"what becomes head_bias is \(3,\), expected \(60,\)"),
        ("decoder.lm_head.bias", torch.full((ENTRIES,), float("nan")), "head_bias holds NaN or infinity"),
        ("decoder.lm_head.dense.weight", None, "what becomes head_dense.weight is missing, expected"),
        (f"{BASE}.layers.1.self_attn.k_proj.bias", None, r"layers\.1\.qkv\.bias lacks a part; get the file"),
        (f"{BASE}.embed_positions.weight", None, "lacks the tables or the layers of an encoder"),
    ],
)
def test_tensors_that_do_not_fit(reference, name, tensor, said, tmp_path):
    tensors = tensors_of(reference)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    with pytest.raises(CheckpointError, match=said):
        load_fairseq(write(tmp_path / "model.pt", tensors))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weights": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match="has no model inside; give a checkpoint of fairseq"):
        load_fairseq(path)
    torch.save({"model": {"a": torch.ones(3)}}, path)
    with pytest.raises(CheckpointError, match=r"has neither args nor cfg\.model; give a checkpoint"):
        load_fairseq(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"model\.pt: (cannot be read|holds something else)"):
        load_fairseq(path)
