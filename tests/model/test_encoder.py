"""The encoder: named sizes, initial weights, limits, precision, and sequences that do not meet."""

import numpy as np
import pytest
import torch

from maskwright.core.config import parse_config
from maskwright.core.errors import CheckpointError, ConfigError
from maskwright.model.config import MODEL_SIZES, EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import Encoder, initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.hf import load_encoder_config, load_weights
from maskwright.model.layout import Layout
from maskwright.planner.flops import num_parameters

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 34,
}
LENGTHS = [5, 12, 3, 12]


@pytest.fixture(scope="module")
def model():
    found = MaskedLM(EncoderConfig(**SMALL))
    initialize(found, 1, 0.1)
    return found


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 89, (sum(LENGTHS),), generator=torch.Generator().manual_seed(2))


def loss_and_gradients(model, ids, lengths, keys=None):
    model.zero_grad()
    targets = torch.arange(0, len(ids), 3)
    loss, _ = model(ids, Layout(lengths), targets, ids[targets], keys)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_sizes_have_the_parameters_that_the_planner_counts(size):
    config = EncoderConfig(vocab_size=50_265, **MODEL_SIZES[size])
    with torch.device("meta"):
        model = MaskedLM(config)
    counted = num_parameters(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
    )
    assert sum(p.numel() for p in model.parameters()) == counted


def test_base_and_large_are_the_published_ones():
    # 125 M and 355 M in arXiv 1907.11692; exact counts of the published RobertaForMaskedLM weights.
    for size, expected in (("base", 124_697_433), ("large", 355_412_057)):
        with torch.device("meta"):
            model = MaskedLM(EncoderConfig(**MODEL_SIZES[size]))
        assert sum(p.numel() for p in model.parameters()) == expected


def test_initial_weights_depend_on_seed_and_name_alone():
    config = EncoderConfig(**SMALL)
    first, again, other = MaskedLM(config), MaskedLM(config), MaskedLM(config)
    torch.manual_seed(3)
    initialize(first, 1, 0.02)
    initialize(again, 1, 0.02)
    initialize(other, 2, 0.02)
    for (name, one), two, three in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two), name
        assert one.dim() < 2 or not torch.equal(one, three), name
    layers = first.encoder.layers
    assert not torch.equal(layers[0].qkv.weight, layers[1].qkv.weight)
    deeper = MaskedLM(config.replace(num_hidden_layers=5))
    initialize(deeper, 1, 0.02)
    state = deeper.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())


def test_initial_weights_are_normal_zero_and_one():
    model = MaskedLM(EncoderConfig(**{**SMALL, "vocab_size": 5000}))
    initialize(model, 1, 0.02)
    state = model.state_dict()
    words = state["encoder.embeddings.word.weight"]
    assert abs(words.std().item() - 0.02) < 2e-4
    assert abs(words.mean().item()) < 2e-4
    assert set(state["encoder.embeddings.norm.weight"].tolist()) == {1.0}
    for name in ("head_bias", "encoder.embeddings.norm.bias", "encoder.layers.0.qkv.bias"):
        assert not state[name].any(), name


def test_a_sequence_changes_nothing_in_another(model, ids):
    starts = np.cumsum([0, *LENGTHS])
    changed = ids.clone()
    changed[starts[1] : starts[2]] = 7
    for keys in (None, DropoutKeys(np.arange(4, dtype=np.int64))):
        with torch.no_grad():
            before, after = (model.encoder(x, Layout(LENGTHS), keys) for x in (ids, changed))
        for row in (0, 2, 3):
            part = slice(starts[row], starts[row + 1])
            assert torch.equal(before[part], after[part])
        assert not torch.equal(before[starts[1] : starts[2]], after[starts[1] : starts[2]])


@pytest.mark.parametrize("dropped", [False, True])
def test_a_batch_is_the_sum_of_its_sequences(model, ids, dropped):
    rows = np.array([4, 9, 1, 7], np.int64)
    keys = DropoutKeys(rows) if dropped else None
    parts = list(ids.split(LENGTHS))
    with torch.no_grad():
        whole = model.encoder(ids, Layout(LENGTHS), keys)
        alone = [
            model.encoder(part, Layout([len(part)]), DropoutKeys(rows[i : i + 1]) if dropped else None)
            for i, part in enumerate(parts)
        ]
    assert (whole - torch.cat(alone)).abs().max() < 1e-5


def test_gradients_of_the_whole_model_equal_finite_differences(ids):
    model = MaskedLM(EncoderConfig(**{**SMALL, "num_hidden_layers": 1})).double()
    initialize(model, 1, 0.3)
    keys = DropoutKeys(np.array([1, 2], np.int64))
    short = ids[:8]
    _, gradients = loss_and_gradients(model, short, [5, 3], keys)
    generator = torch.Generator().manual_seed(5)
    step, targets = 1e-6, torch.arange(0, 8, 3)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
                values.append(model(short, Layout([5, 3]), targets, short[targets], keys)[0].item())
                parameter -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx((gradients[name] * direction).sum().item(), rel=1e-5, abs=1e-6), name


def test_bf16_is_close_to_fp32(model, ids):
    loss, gradients = loss_and_gradients(model, ids, LENGTHS)
    low = MaskedLM(model.config)
    low.load_state_dict(model.state_dict())
    low.to(torch.bfloat16)
    low_loss, low_gradients = loss_and_gradients(low, ids, LENGTHS)
    assert low_loss == pytest.approx(loss, rel=0.02)
    for name, gradient in gradients.items():
        difference = (low_gradients[name].float() - gradient).norm()
        assert difference <= 0.1 * gradient.norm() + 1e-3, name


def test_the_gradient_of_a_frequent_token_is_summed_in_fp32():
    """A thousand ones added up in bf16 would stop at 256, where the next number is 258."""
    encoder = Encoder(EncoderConfig(**SMALL)).to(torch.bfloat16)
    embeddings = encoder.embeddings
    embeddings.norm = torch.nn.Identity()
    ids = torch.full((1000,), 9)
    embeddings(ids, Layout([10] * 100), None).sum().backward()
    assert set(embeddings.word.weight.grad[9].tolist()) == {1000.0}
    assert set(embeddings.position.weight.grad[2].tolist()) == {100.0}


def test_a_sequence_too_long():
    encoder = Encoder(EncoderConfig(**SMALL))
    with pytest.raises(
        ValueError, match="a sequence has 33 tokens, but the model holds positions for 32; cut it"
    ):
        encoder(torch.zeros(33, dtype=torch.int64), Layout([33]))
    assert encoder(torch.zeros(32, dtype=torch.int64), Layout([32])).shape == (32, 32)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="hidden_size 768 is not a multiple of num_attention_heads 7"):
        parse_config(EncoderConfig, {"num_attention_heads": 7}, "here")


def test_a_classifier_drops_in_training_alone(ids):
    model = SequenceClassifier(EncoderConfig(**SMALL), 3, dropout_prob=0.5)
    initialize(model, 1, 0.1)
    layout, keys = Layout(LENGTHS), DropoutKeys(np.arange(4, dtype=np.int64))
    assert torch.equal(model(ids, layout), model(ids, layout))
    assert torch.equal(model(ids, layout, keys), model(ids, layout, keys))
    assert not torch.equal(model(ids, layout), model(ids, layout, keys))
    assert SequenceClassifier(EncoderConfig(**SMALL), 3).dropout_prob == 0.1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"has no config\.json; give the folder of an exported model"),
        ("[]", "holds a list, expected the config of a model"),
        ("{}", 'model_type is "None", expected roberta, xlm-roberta, camembert, bert'),
        ('{"model_type": "gpt2"}', 'model_type is "gpt2", expected roberta'),
        ('{"model_type": "roberta", "hidden_act": "relu"}', 'hidden_act is "relu", only "gelu" is supported'),
        ('{"model_type": "roberta", "hidden_size": "wide"}', "\"hidden_size\" is 'wide', expected integer"),
        (
            '{"model_type": "roberta", "hidden_size": 7}',
            '"hidden_size" is 7, expected greater than or equal to 8',
        ),
    ],
)
def test_a_config_that_is_none(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        load_encoder_config(tmp_path)


class TestWeights:
    """Weights that are missing, damaged, or of another model."""

    @pytest.fixture
    def folder(self, model, tmp_path):
        from maskwright.model.hf import export_model

        export_model(tmp_path, model, model.config)
        return tmp_path

    def test_missing(self, model, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"has no model\.safetensors; give the folder"):
            load_weights(MaskedLM(model.config), folder)

    def test_truncated(self, model, folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors: cannot be read .*export the model again"
        ):
            load_weights(MaskedLM(model.config), folder)

    def test_of_another_width(self, model, folder):
        other = MaskedLM(model.config.replace(intermediate_size=48))
        said = r"intermediate\.dense\.weight has shape \(64, 32\), but the config asks for \(48, 32\)"
        with pytest.raises(CheckpointError, match=said):
            load_weights(other, folder)

    def test_of_another_head(self, model, folder):
        with pytest.raises(
            CheckpointError, match=r"has no tensor classifier\.dense\.weight; is this a RoBERTa"
        ):
            load_weights(SequenceClassifier(model.config, 2), folder)

    def test_not_finite(self, model, folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.bias"][3] = float("nan")
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"lm_head\.bias holds NaN or infinity; use an earlier"):
            load_weights(MaskedLM(model.config), folder)

    def test_encoder_alone(self, model, folder):
        classifier = SequenceClassifier(model.config, 2)
        initialize(classifier, 8, 0.1)
        head = classifier.head_dense.weight.clone()
        load_weights(classifier, folder, encoder_only=True)
        assert torch.equal(classifier.head_dense.weight, head)
        name = "embeddings.word.weight"
        assert torch.equal(classifier.encoder.state_dict()[name], model.encoder.state_dict()[name])
