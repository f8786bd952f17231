"""The kinds of models: what each brings, token types, the pooler and next-sentence prediction."""

import numpy as np
import pytest
import torch

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.model.config import MODEL_KINDS, MODEL_SIZES, EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import Encoder, initialize
from maskwright.model.heads import MaskedLM, SequenceClassifier
from maskwright.model.layout import Layout

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 34,
}
LENGTHS = [5, 12, 3]


def small(kind, **changes):
    return EncoderConfig(model_type=kind, **{**SMALL, **changes})


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 89, (sum(LENGTHS),), generator=torch.Generator().manual_seed(2))


def test_each_kind_is_the_published_base_model():
    """Exact counts of the published masked language models, without a pooler."""
    expected = {
        "roberta": 124_697_433,
        "xlm-roberta": 278_295_186,
        "camembert": 110_655_493,
        "bert": 109_514_298,
    }
    assert MODEL_KINDS.keys() == expected.keys()
    for kind, count in expected.items():
        with torch.device("meta"):
            model = MaskedLM(EncoderConfig(model_type=kind, **MODEL_SIZES["base"]))
        assert sum(parameter.numel() for parameter in model.parameters()) == count, kind


def test_the_largest_sizes_have_their_shapes_in_every_kind():
    for kind in MODEL_KINDS:
        for size, width, layers in (("xl", 2560, 36), ("xxl", 4096, 48)):
            with torch.device("meta"):
                model = MaskedLM(EncoderConfig(model_type=kind, next_sentence=True, **MODEL_SIZES[size]))
            assert len(model.encoder.layers) == layers
            assert model.encoder.layers[-1].qkv.weight.shape == (3 * width, width)
            assert model.pooler.weight.shape == (width, width)
            assert model.nsp_output.weight.shape == (2, width)


def test_positions_begin_where_each_kind_has_them():
    assert (small("bert").first_position, small("bert").max_length) == (0, 34)
    assert (small("roberta").first_position, small("roberta").max_length) == (2, 32)
    assert small("roberta", pad_token_id=0).max_length == 33
    assert small("bert", pad_token_id=3).max_length == 34
    assert EncoderConfig(model_type="bert").max_length == EncoderConfig().max_length == 512
    assert (small("bert").type_vocab_size, small("camembert").type_vocab_size) == (2, 1)
    assert (small("bert").layer_norm_eps, small("xlm-roberta").layer_norm_eps) == (1e-12, 1e-5)


def test_a_table_without_a_position():
    said = "max_position_embeddings 5 leaves no position, because a roberta model counts from 5; raise it"
    with pytest.raises(ConfigError, match=said):
        parse_config(EncoderConfig, {"max_position_embeddings": 5, "pad_token_id": 4}, "here")


def test_a_kind_that_is_none():
    with pytest.raises(ConfigError, match="\"model_type\" is 'gpt2', expected 'roberta', 'xlm-roberta'"):
        parse_config(EncoderConfig, {"model_type": "gpt2"}, "here")
    with pytest.raises(ConfigError, match='"model_type" is 7, expected'):
        parse_config(EncoderConfig, {"model_type": 7}, "here")


def test_a_change_keeps_what_the_kind_brought():
    config = small("bert").replace(num_hidden_layers=3)
    assert (config.type_vocab_size, config.pad_token_id, config.bos_token_id) == (2, 0, None)


class TestTokenTypes:
    """Each token has the embedding of its own type."""

    def test_none_is_the_first(self, ids):
        model = MaskedLM(small("bert"))
        initialize(model, 1, 0.1)
        layout = Layout(LENGTHS)
        with torch.no_grad():
            without = model.encode(ids, layout)
            first = model.encode(ids, layout, None, torch.zeros_like(ids))
            second = model.encode(ids, layout, None, torch.ones_like(ids))
        assert torch.equal(without, first)
        assert not torch.equal(without, second)

    def test_a_type_reaches_its_own_sequence_alone(self, ids):
        model = MaskedLM(small("bert"))
        initialize(model, 1, 0.1)
        types = torch.zeros_like(ids)
        types[7:10] = 1
        with torch.no_grad():
            before = model.encode(ids, Layout(LENGTHS))
            after = model.encode(ids, Layout(LENGTHS), None, types)
        changed = (before != after).any(1)
        assert changed[5:17].all()
        assert not changed[:5].any()
        assert not changed[17:].any()

    def test_the_gradient_of_a_type_is_the_sum_over_its_tokens(self):
        embeddings = Encoder(small("bert")).to(torch.bfloat16).embeddings
        embeddings.norm = torch.nn.Identity()
        types = torch.cat([torch.zeros(700, dtype=torch.int64), torch.ones(300, dtype=torch.int64)])
        embeddings(torch.full((1000,), 9), Layout([10] * 100), None, types).sum().backward()
        # bf16 holds neither number exactly; a sum in bf16 would stop at 256.
        expected = torch.tensor([700.0, 300.0]).to(torch.bfloat16)
        assert torch.equal(embeddings.token_type.weight.grad[:, 0], expected)

    def test_types_for_a_model_with_one(self, ids):
        with pytest.raises(ValueError, match="the model has only one; set type_vocab_size to 2"):
            MaskedLM(small("roberta")).encode(ids, Layout(LENGTHS), None, torch.zeros_like(ids))


class TestNextSentence:
    """The pooler and the head on top of it."""

    def test_scores_come_from_the_first_token_of_each_sequence(self, ids):
        model = MaskedLM(small("bert", next_sentence=True))
        initialize(model, 1, 0.5)
        with torch.no_grad():
            hidden = model.encode(ids, Layout(LENGTHS))
            scores = model.next_sentence_logits(hidden, Layout(LENGTHS))
            rows = hidden[[0, 5, 17]]
            pooled = torch.tanh(rows @ model.pooler.weight.T + model.pooler.bias)
            expected = pooled @ model.nsp_output.weight.T + model.nsp_output.bias
        assert scores.shape == (3, 2)
        assert (scores - expected).abs().max() < 1e-6

    def test_scores_are_fp32_in_bf16(self, ids):
        model = MaskedLM(small("bert", next_sentence=True)).to(torch.bfloat16)
        hidden = model.encode(ids, Layout(LENGTHS))
        assert model.next_sentence_logits(hidden, Layout(LENGTHS)).dtype == torch.float32

    def test_both_losses_together_are_forward_and_head(self, ids):
        model = MaskedLM(small("bert", next_sentence=True))
        initialize(model, 1, 0.1)
        layout, targets = Layout(LENGTHS), torch.arange(0, len(ids), 3)
        with torch.no_grad():
            hidden = model.encode(ids, layout)
            assert torch.equal(
                model.masked_loss(hidden, targets, ids[targets])[0],
                model(ids, layout, targets, ids[targets])[0],
            )

    def test_a_model_without(self, ids):
        model = MaskedLM(small("roberta"))
        hidden = model.encode(ids, Layout(LENGTHS))
        with pytest.raises(ValueError, match="the model has no pooler; set pooler or next_sentence"):
            model.pooled(hidden, Layout(LENGTHS))
        with pytest.raises(ValueError, match="has no head for next-sentence prediction; set next_sentence"):
            model.next_sentence_logits(hidden, Layout(LENGTHS))

    def test_heads_change_no_other_initial_weight(self):
        with_heads, without = MaskedLM(small("bert", next_sentence=True)), MaskedLM(small("bert"))
        initialize(with_heads, 1, 0.1)
        initialize(without, 1, 0.1)
        state = with_heads.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in without.state_dict().items())


def test_a_bert_classifier_drops_after_its_pooler_alone(ids):
    """What reaches the pooler has zeros in it where RoBERTa's head drops its input."""
    layout = Layout(LENGTHS)
    for kind, is_dropped in (("roberta", True), ("bert", False)):
        model = SequenceClassifier(small(kind, hidden_dropout_prob=0.0), 2, dropout_prob=0.5)
        initialize(model, 1, 0.1)
        seen = []
        model.head_dense.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            model(ids, layout, DropoutKeys(np.arange(3, dtype=np.int64)))
        assert ((seen[0] == 0).float().mean().item() > 0.2) == is_dropped
