"""Larger models from smaller ones, and larger vocabularies."""

import pytest
import torch

from maskwright.core.errors import ConfigError
from maskwright.model.config import MODEL_SIZES, EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.grow import extend_vocabulary, tile_weights
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout

SMALL = EncoderConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=12,
)
LARGE = SMALL.replace(
    hidden_size=40,
    num_hidden_layers=5,
    num_attention_heads=5,
    intermediate_size=100,
    max_position_embeddings=30,
)


def state_of(config, seed=1):
    model = MaskedLM(config)
    initialize(model, seed, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.arange(len(parameter)) / 100)
    return model.state_dict()


@pytest.fixture(scope="module")
def small():
    return state_of(SMALL)


class TestTiling:
    """Every axis has the small model in its middle and wraps around."""

    @pytest.mark.parametrize("layers", ["spread", "repeat"])
    @pytest.mark.parametrize("kind", ["roberta", "bert"])
    def test_the_same_shape_is_the_identity(self, kind, layers):
        config = EncoderConfig(model_type=kind, next_sentence=True, **MODEL_SIZES["tiny"], vocab_size=50)
        state = state_of(config)
        again = tile_weights(state, config, config, layers=layers)
        assert again.keys() == state.keys()
        for name, tensor in state.items():
            assert torch.equal(again[name], tensor), name
            assert again[name].data_ptr() != tensor.data_ptr()

    def test_the_result_fills_the_large_model_and_is_always_the_same(self, small):
        first, second = tile_weights(small, SMALL, LARGE), tile_weights(small, SMALL, LARGE)
        model = MaskedLM(LARGE)
        model.load_state_dict(first)
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        ids = torch.arange(28)
        with torch.no_grad():
            assert torch.isfinite(model.logits(model.encode(ids, Layout([28])))).all()

    @pytest.mark.parametrize(("before", "after"), [("base", "large"), ("large", "xl"), ("xl", "xxl")])
    def test_named_sizes_grow_into_each_other(self, before, after):
        configs = [EncoderConfig(vocab_size=30, **MODEL_SIZES[size]) for size in (before, after)]
        with torch.device("meta"):
            states = [MaskedLM(config).state_dict() for config in configs]
        large = tile_weights({n: torch.empty_like(t) for n, t in states[0].items()}, *configs)
        assert {n: t.shape for n, t in large.items()} == {n: t.shape for n, t in states[1].items()}

    def test_the_small_model_lies_in_the_middle(self, small):
        large = tile_weights(small, SMALL, LARGE)
        inner = slice(8, 32)  # (40 - 24) / 2
        for name in ("encoder.layers.0.attention_output.bias", "encoder.embeddings.norm.bias"):
            assert torch.equal(large[name][inner], small[name])
        assert torch.equal(large["head_dense.weight"][inner, inner], small["head_dense.weight"])
        words = "encoder.embeddings.word.weight"
        assert torch.equal(large[words][:, inner], small[words])
        assert torch.equal(large[words][:, :8], small[words][:, -8:])
        assert torch.equal(large[words][:, 32:], small[words][:, :8])
        assert torch.equal(large["head_bias"], small["head_bias"])
        middle = slice(30, 70)  # (100 - 40) / 2
        name = "encoder.layers.0.intermediate.weight"
        assert torch.equal(large[name][middle, inner], small[name])

    def test_heads_stay_whole(self, small):
        """Each head of the large model computes with the rows of one head of the small one."""
        large = tile_weights(small, SMALL, LARGE)
        before = small["encoder.layers.0.qkv.bias"].view(3, 3, 8)  # heads, parts, width
        after = large["encoder.layers.0.qkv.bias"].view(5, 3, 8)
        assert torch.equal(after, before[[2, 0, 1, 2, 0]])
        rows = large["encoder.layers.0.attention_output.weight"][8:32].view(24, 5, 8)
        source = small["encoder.layers.0.attention_output.weight"].view(24, 3, 8)
        assert torch.equal(rows, source[:, [2, 0, 1, 2, 0]])

    def test_heads_of_either_model_alone_are_left_out(self):
        both = SMALL.replace(next_sentence=True)
        assert {"pooler.bias", "nsp_output.bias"} <= tile_weights(state_of(both), both, both).keys()
        pooled = tile_weights(state_of(both), both, LARGE.replace(pooler=True))
        assert pooled["pooler.weight"].shape == (40, 40)
        assert not any(name.startswith("nsp_output") for name in pooled)
        assert MaskedLM(LARGE).state_dict().keys() == tile_weights(state_of(both), both, LARGE).keys()
        assert tile_weights(state_of(SMALL), SMALL, both).keys() == MaskedLM(SMALL).state_dict().keys()

    def test_positions_begin_again(self, small):
        large = tile_weights(small, SMALL, LARGE)
        name = "encoder.embeddings.position.weight"
        before, after = small[name], large[name][:, 8:32]
        assert torch.equal(after[:12], before)
        assert torch.equal(after[12:22], before[2:])
        assert torch.equal(after[22:30], before[2:10])

    @pytest.mark.parametrize(
        ("layers", "expected"), [("spread", [0, 0, 0, 1, 1]), ("repeat", [0, 1, 0, 1, 0])]
    )
    def test_layers(self, small, layers, expected):
        large = tile_weights(small, SMALL, LARGE, layers=layers)
        found = []
        for number in range(5):
            bias = large[f"encoder.layers.{number}.attention_norm.bias"][8:32]
            weight = large[f"encoder.layers.{number}.qkv.weight"][24:32, 8:32]
            name = "encoder.layers.{}.qkv.weight"
            same = [torch.equal(weight, small[name.format(source)][:8]) for source in range(2)]
            assert torch.equal(bias, small["encoder.layers.0.attention_norm.bias"])
            found.append(same.index(True))
        assert found == expected

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"vocab_size": 51},
                "the small model has vocab_size 50, the large one 51; they must be the same",
            ),
            ({"pad_token_id": 2}, "has pad_token_id 1, the large one 2"),
            ({"type_vocab_size": 2}, "has type_vocab_size 1, the large one 2"),
            ({"model_type": "camembert"}, "has model_type roberta, the large one camembert"),
            ({"hidden_size": 21}, "has hidden_size 24, the large one 21; it must be no smaller"),
            ({"num_hidden_layers": 1}, "has num_hidden_layers 2, the large one 1"),
            ({"intermediate_size": 39}, "has intermediate_size 40, the large one 39"),
            ({"max_position_embeddings": 11}, "has max_position_embeddings 12, the large one 11"),
            ({"num_attention_heads": 2}, "has num_attention_heads 3, the large one 2"),
            ({"hidden_size": 28, "num_attention_heads": 4}, "has head_size 8, the large one 7"),
        ],
    )
    def test_shapes_that_do_not_fit(self, small, changes, said):
        with pytest.raises(ConfigError, match=said):
            tile_weights(small, SMALL, SMALL.replace(**changes))


class TestVocabulary:
    """New entries at the end; the old ones stay as they are."""

    def test_the_mean_of_the_pieces(self, small):
        state, config = extend_vocabulary(small, SMALL, 2, pieces=[[3, 7], [9]])
        words, bias = state["encoder.embeddings.word.weight"], state["head_bias"]
        before = small["encoder.embeddings.word.weight"]
        assert config.vocab_size == 52
        assert torch.equal(words[:50], before)
        assert torch.equal(words[50], (before[3] + before[7]) / 2)
        assert torch.equal(words[51], before[9])
        assert torch.equal(bias[50:], torch.stack([small["head_bias"][[3, 7]].mean(), small["head_bias"][9]]))
        model = MaskedLM(config)
        model.load_state_dict(state)

    def test_a_new_entry_of_one_piece_is_scored_as_that_piece(self, small):
        state, config = extend_vocabulary(small, SMALL, 1, pieces=[[9]])
        model = MaskedLM(config)
        model.load_state_dict(state)
        with torch.no_grad():
            logits = model.logits(model.encode(torch.tensor([4, 50, 6]), Layout([3])))
            same = model.logits(model.encode(torch.tensor([4, 9, 6]), Layout([3])))
        assert torch.allclose(logits[:, 50], logits[:, 9], atol=1e-6)
        assert torch.allclose(logits, same, atol=1e-6)

    def test_random_rows_depend_on_the_seed(self, small):
        one, _ = extend_vocabulary(small, SMALL, 400, how="random", seed=1)
        again, _ = extend_vocabulary(small, SMALL, 400, how="random", seed=1)
        other, config = extend_vocabulary(small, SMALL, 400, how="random", seed=2)
        name = "encoder.embeddings.word.weight"
        assert config.vocab_size == 450
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
        assert abs(one[name][50:].std().item() - SMALL.initializer_range) < 1e-3
        assert one["head_bias"][60].item() == pytest.approx(small["head_bias"].mean().item())

    @pytest.mark.parametrize(
        ("num_new", "pieces", "said"),
        [
            (0, [], "num_new is 0, expected at least 1"),
            (2, [[1]], "pieces are given for 1 entries, but num_new is 2"),
            (1, [[]], r"pieces of new entry 0 are \[\], expected ids from 0 to 49"),
            (2, [[1], [50]], r"pieces of new entry 1 are \[50\], expected ids from 0 to 49"),
        ],
    )
    def test_pieces_that_do_not_fit(self, small, num_new, pieces, said):
        with pytest.raises(ConfigError, match=said):
            extend_vocabulary(small, SMALL, num_new, pieces=pieces)
