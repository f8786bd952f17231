"""Our model against `transformers`, both ways, for the same weights."""

from pathlib import Path

import pytest
import torch

from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import export_model, load_encoder_config, load_weights
from maskwright.model.layout import Layout

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SHAPES = {
    "narrow": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    "odd heads": {
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 160,
    },
    "deep": {"hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 128},
    "one head": {
        "hidden_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "intermediate_size": 64,
    },
}
LENGTHS = {"without padding": [24, 24, 24], "with padding": [24, 5, 17, 1, 24]}


def _batch(lengths: list[int], vocab_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded ids, attention mask, and the ids laid end to end."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, vocab_size, (length,), generator=generator) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    return ids, (ids != 1).long(), torch.cat(rows)


@pytest.fixture(params=SHAPES, scope="module")
def pair(request, tmp_path_factory):
    config = EncoderConfig(vocab_size=300, max_position_embeddings=40, **SHAPES[request.param])
    model = MaskedLM(config)
    initialize(model, seed=3, std=0.1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter.data, 0.5, 0.2)
    folder: Path = tmp_path_factory.mktemp("model")
    export_model(folder, model, config)
    reference = transformers.RobertaForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    return model, reference.eval(), folder


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_logits_equal(pair, lengths):
    model, reference, _ = pair
    ids, mask, ids_N = _batch(lengths, 300)
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask).logits[mask.bool()]
        ours = model.logits(model.encoder(ids_N, Layout(lengths)))
    assert (ours - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_loss_and_gradients_equal(pair, lengths):
    model, reference, _ = pair
    ids, mask, ids_N = _batch(lengths, 300)
    targets = torch.arange(0, len(ids_N), 3)
    labels_N = torch.full_like(ids_N, -100)
    labels_N[targets] = (ids_N[targets] * 7) % 300
    labels = torch.full_like(ids, -100)
    labels[mask.bool()] = labels_N
    reference.zero_grad()
    model.zero_grad()
    expected = reference(ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    loss, correct = model(ids_N, Layout(lengths), targets, labels_N[targets])
    (loss / len(targets)).backward()
    assert abs(loss.item() / len(targets) - expected.item()) <= 1e-5
    theirs = dict(reference.named_parameters())
    prefix = "roberta.encoder.layer.0.attention"
    qkv = torch.cat([theirs[f"{prefix}.self.{part}.weight"].grad for part in ("query", "key", "value")])
    first = model.encoder.layers[0]
    assert (first.qkv.weight.grad - qkv).abs().max() <= 1e-5
    for ours, name in [
        (first.output.bias, "roberta.encoder.layer.0.output.dense.bias"),
        (first.attention_norm.weight, f"{prefix}.output.LayerNorm.weight"),
        (model.encoder.embeddings.position.weight, "roberta.embeddings.position_embeddings.weight"),
        (model.encoder.embeddings.token_type.weight, "roberta.embeddings.token_type_embeddings.weight"),
        (model.encoder.embeddings.word.weight, "roberta.embeddings.word_embeddings.weight"),
        (model.head_bias, "lm_head.bias"),
    ]:
        assert (ours.grad - theirs[name].grad).abs().max() <= 1e-5, name
    with torch.no_grad():
        best = model.logits(model.encoder(ids_N, Layout(lengths)))[targets].argmax(-1)
    assert correct.item() == (best == labels_N[targets]).sum().item()


def test_weights_return_unchanged(pair):
    model, reference, folder = pair
    config, _ = load_encoder_config(folder)
    again = MaskedLM(config)
    load_weights(again, folder)
    assert config == model.config
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    assert sum(p.numel() for p in reference.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_model_saved_by_transformers_loads(pair, tmp_path):
    model, reference, _ = pair
    reference.save_pretrained(tmp_path)
    config, _ = load_encoder_config(tmp_path)
    again = MaskedLM(config)
    load_weights(again, tmp_path)
    for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_classifier_logits_equal(tmp_path):
    config = EncoderConfig(vocab_size=300, max_position_embeddings=40, **SHAPES["narrow"])
    model = SequenceClassifier(config, 3)
    initialize(model, seed=3, std=0.1)
    export_model(tmp_path, model, config, ["bad", "good", "so-so"])
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids, mask, ids_N = _batch([9, 24, 2], 300)
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask).logits
        ours = model(ids_N, Layout([9, 24, 2]))
    assert (ours - expected).abs().max() <= 1e-5
    assert reference.config.id2label == {0: "bad", 1: "good", 2: "so-so"}
