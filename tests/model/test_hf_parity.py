"""Our models against `transformers`, both ways, for the same weights: every kind, with every head."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import export_model, load_encoder_config, load_model, load_weights, to_hf_names
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
KINDS = {
    "roberta": ("Roberta", {"shape": "narrow"}),
    "roberta with two token types": ("Roberta", {"shape": "odd heads", "type_vocab_size": 2}),
    "xlm-roberta": ("XLMRoberta", {"shape": "deep"}),
    "camembert": ("Camembert", {"shape": "one head"}),
    "bert": ("Bert", {"shape": "narrow"}),
    "bert, deep": ("Bert", {"shape": "deep"}),
}
LENGTHS = {"without padding": [24, 24, 24], "with padding": [24, 5, 17, 1, 24]}
VOCABULARY = 300


def config_of(name, **changes):
    _, values = KINDS[name]
    values = {**values, **SHAPES[values["shape"]], **changes}
    del values["shape"]
    kind = name.partition(" with")[0].partition(",")[0]
    return EncoderConfig(model_type=kind, vocab_size=VOCABULARY, max_position_embeddings=40, **values)


def disturb(model):
    """Make norms and biases unlike those of a new model, so that none can be swapped unseen."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            mean, std = (0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.1)
            parameter.copy_(torch.empty(parameter.shape).normal_(mean, std, generator=generator))
    return model


def batch_of(lengths, config):
    """Padded arguments for `transformers`; and ids and token types laid end to end."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(7, VOCABULARY, (length,), generator=generator) for length in lengths]
    types = [torch.randint(0, config.type_vocab_size, (length,), generator=generator) for length in lengths]

    def pad(parts, value):
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    padded = {
        "input_ids": pad(rows, config.pad_token_id),
        "attention_mask": pad([torch.ones_like(row) for row in rows], 0),
        "token_type_ids": pad(types, 0),
    }
    types_N = torch.cat(types) if config.type_vocab_size > 1 else None
    return padded, torch.cat(rows), types_N


def published(kind, task, folder):
    return getattr(transformers, f"{kind}{task}").from_pretrained(folder, attn_implementation="eager").eval()


def foreign(kind, task, config):
    """A model of `transformers` with weights of its own."""
    values = config.model_dump(exclude={"model_type", "pooler", "next_sentence"})
    settings = getattr(transformers, f"{kind}Config")(**values, attn_implementation="eager")
    return disturb(getattr(transformers, f"{kind}{task}")(settings)).eval()


def largest_difference(ours, theirs):
    """Over all tensors of a model of ours, given by our names, and those that have the same ones there."""
    return max((values - theirs[name]).abs().max().item() for name, values in ours.items())


@pytest.fixture(
    params=[(way, name) for way in ("ours to theirs", "theirs to ours") for name in KINDS],
    ids=lambda param: ", ".join(param),
    scope="module",
)
def both(request, tmp_path_factory):
    """A model of ours, the one of `transformers` with the same weights, and the folder between them."""
    way, name = request.param
    config, prefix, folder = config_of(name), KINDS[name][0], tmp_path_factory.mktemp("model")
    if way == "ours to theirs":
        model = disturb(MaskedLM(config))
        export_model(folder, model, config)
        return model, published(prefix, "ForMaskedLM", folder), folder
    reference = foreign(prefix, "ForMaskedLM", config)
    reference.save_pretrained(folder)
    model, labels = load_model(folder)
    assert labels is None
    assert model.config == config
    return model, reference, folder


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_logits_are_equal(both, lengths):
    model, reference, _ = both
    padded, ids_N, types_N = batch_of(lengths, model.config)
    with torch.no_grad():
        expected = reference(**padded).logits[padded["attention_mask"].bool()]
        ours = model.logits(model.encode(ids_N, Layout(lengths), None, types_N))
    assert (ours - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_loss_and_every_gradient_are_equal(both, lengths):
    model, reference, _ = both
    padded, ids_N, types_N = batch_of(lengths, model.config)
    targets = torch.arange(0, len(ids_N), 3)
    labels_N = torch.full_like(ids_N, -100)
    labels_N[targets] = (ids_N[targets] * 7) % VOCABULARY
    labels = torch.full_like(padded["input_ids"], -100)
    labels[padded["attention_mask"].bool()] = labels_N
    reference.zero_grad()
    model.zero_grad()
    expected = reference(**padded, labels=labels).loss
    expected.backward()
    loss, correct = model(ids_N, Layout(lengths), targets, labels_N[targets], None, types_N)
    (loss / len(targets)).backward()
    assert abs(loss.item() / len(targets) - expected.item()) <= 1e-5
    grads = {name: p.grad for name, p in model.named_parameters()}
    ours = to_hf_names(grads, model.config.num_attention_heads, model.config.model_type)
    theirs = {name: p.grad for name, p in reference.named_parameters(remove_duplicate=False)}
    assert largest_difference(ours, theirs) <= 1e-5
    assert theirs.keys() - ours.keys() == {name for name in theirs if ".decoder." in name}
    with torch.no_grad():
        best = model.logits(model.encode(ids_N, Layout(lengths), None, types_N))[targets].argmax(-1)
    assert correct.item() == (best == labels_N[targets]).sum().item()


def test_weights_return_unchanged(both):
    model, reference, folder = both
    config, _ = load_encoder_config(folder)
    again = MaskedLM(config)
    load_weights(again, folder)
    assert config == model.config
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    assert sum(p.numel() for p in reference.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_model_saved_again_by_transformers_loads(both, tmp_path):
    model, reference, _ = both
    reference.save_pretrained(tmp_path)
    again, _ = load_model(tmp_path)
    assert again.config == model.config
    for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after)


class TestNextSentence:
    """BERT with both of its objectives."""

    LENGTHS = (24, 5, 17)

    def outputs(self, model):
        _, ids_N, types_N = batch_of(self.LENGTHS, model.config)
        hidden_ND = model.encode(ids_N, Layout(self.LENGTHS), None, types_N)
        return model.logits(hidden_ND), model.next_sentence_logits(hidden_ND, Layout(self.LENGTHS))

    @pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
    def test_logits_and_gradients_are_equal(self, direction, tmp_path):
        config = config_of("bert", next_sentence=True)
        if direction == "ours to theirs":
            model = disturb(MaskedLM(config))
            export_model(tmp_path, model, config)
            reference = published("Bert", "ForPreTraining", tmp_path)
        else:
            reference = foreign("Bert", "ForPreTraining", config)
            reference.save_pretrained(tmp_path)
            model, _ = load_model(tmp_path)
            assert model.config.next_sentence
        padded, _, _ = batch_of(self.LENGTHS, config)
        found = reference(**padded)
        words, sentences = self.outputs(model)
        real = padded["attention_mask"].bool()
        assert (words - found.prediction_logits[real]).abs().max() <= 1e-5
        assert (sentences - found.seq_relationship_logits).abs().max() <= 1e-5
        labels_B, labels_N = torch.tensor([0, 1, 1]), torch.arange(len(words)) % VOCABULARY
        (cross_entropy(sentences, labels_B) + cross_entropy(words, labels_N)).backward()
        losses = cross_entropy(found.seq_relationship_logits, labels_B)
        (losses + cross_entropy(found.prediction_logits[real], labels_N)).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        theirs = {name: p.grad for name, p in reference.named_parameters(remove_duplicate=False)}
        assert largest_difference(to_hf_names(grads, config.num_attention_heads, "bert"), theirs) <= 1e-5

    def test_the_masked_part_alone_is_a_masked_language_model_there(self, tmp_path):
        config = config_of("bert", next_sentence=True)
        model = disturb(MaskedLM(config))
        export_model(tmp_path, model, config)
        padded, _, _ = batch_of(self.LENGTHS, config)
        with torch.no_grad():
            expected = published("Bert", "ForMaskedLM", tmp_path)(**padded).logits
            words, _ = self.outputs(model)
        assert (words - expected[padded["attention_mask"].bool()]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_a_pooler_is_kept(name, tmp_path):
    config = config_of(name, pooler=True)
    model = disturb(MaskedLM(config))
    export_model(tmp_path, model, config)
    again, _ = load_model(tmp_path)
    assert again.config == config
    padded, ids_N, types_N = batch_of([24, 3], config)
    with torch.no_grad():
        expected = published(KINDS[name][0], "Model", tmp_path)(**padded).pooler_output
        ours = again.pooled(again.encode(ids_N, Layout([24, 3]), None, types_N), Layout([24, 3]))
    assert (ours - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_classifier_logits_are_equal(name, tmp_path):
    config = config_of(name)
    model = SequenceClassifier(config, 3)
    initialize(model, seed=3, std=0.1)
    export_model(tmp_path, model, config, ["bad", "good", "so-so"])
    reference = published(KINDS[name][0], "ForSequenceClassification", tmp_path)
    padded, ids_N, types_N = batch_of([9, 24, 2], config)
    with torch.no_grad():
        expected = reference(**padded).logits
        ours = model(ids_N, Layout([9, 24, 2]), None, types_N)
    assert (ours - expected).abs().max() <= 1e-5
    assert reference.config.id2label == {0: "bad", 1: "good", 2: "so-so"}
    again, labels = load_model(tmp_path)
    assert labels == ["bad", "good", "so-so"]
    for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_a_classifier_of_two_unnamed_classes(tmp_path):
    config = config_of("bert")
    reference = foreign("Bert", "ForSequenceClassification", config)
    reference.save_pretrained(tmp_path)
    model, labels = load_model(tmp_path)
    assert labels == ["LABEL_0", "LABEL_1"]
    padded, ids_N, types_N = batch_of([9, 24], config)
    with torch.no_grad():
        difference = model(ids_N, Layout([9, 24]), None, types_N) - reference(**padded).logits
    assert difference.abs().max() <= 1e-5
