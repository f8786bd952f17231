"""Weights that come in blocks, drawn or read, are those of a model that is filled whole."""

import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskwright.core.errors import CheckpointError
from maskwright.core.keyed import derive_key
from maskwright.model import encoder
from maskwright.model.encoder import initial_weights, initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.hf import export_model, load_weights, read_weights
from tiny_engine import UNEVEN, empty_model, whole_model

WORDS = "encoder.embeddings.word.weight"


def collected(blocks):
    """Whole tensors of blocks, which must come in order."""
    found = {}
    for name, first_row, values in blocks:
        found.setdefault(name, [])
        assert sum(len(rows) for rows in found[name]) == first_row
        found[name].append(values)
    return {name: torch.cat(rows) for name, rows in found.items()}, found


def same(weights, model):
    state = model.state_dict()
    return weights.keys() == state.keys() and all(torch.equal(weights[name], state[name]) for name in state)


class TestDrawn:
    # Blocks of 16 rows, of 32, and of all.
    @pytest.mark.parametrize("values", [1, 700, 1 << 22])
    def test_in_blocks_as_at_once(self, monkeypatch, values):
        at_once = whole_model(5)
        monkeypatch.setattr(encoder, "_BLOCK_VALUES", values)
        weights, blocks = collected(initial_weights(empty_model(), 5, 0.1))
        assert same(weights, at_once)
        assert same(weights, whole_model(5))
        assert len(blocks[WORDS]) == (4 if values == 1 else 2 if values == 700 else 1)

    @pytest.mark.parametrize("rows", [15, 16, 17, 31, 32, 33, 47, 49, 100])
    @pytest.mark.parametrize("width", [1, 2, 5, 16])
    def test_a_table_is_one_draw_of_the_framework(self, monkeypatch, rows, width):
        monkeypatch.setattr(encoder, "_BLOCK_VALUES", 1)
        table = torch.nn.Embedding(rows, width, device="meta")
        weights, blocks = collected(initial_weights(table, 7, 0.3))
        generator = torch.Generator().manual_seed(derive_key(7, "init", "weight") & (2**63 - 1))
        assert torch.equal(weights["weight"], torch.empty(rows, width).normal_(0, 0.3, generator=generator))
        assert len(blocks["weight"]) in (rows // 16, -(-rows // 16)) or rows < 16
        assert all(values.numel() >= 16 for values in blocks["weight"]) or rows * width < 16

    def test_some_are_left_out(self):
        weights, _ = collected(initial_weights(empty_model(), 5, 0.1, without={WORDS, "head_bias"}))
        assert empty_model().state_dict().keys() - weights.keys() == {WORDS, "head_bias"}

    def test_what_has_no_memory_is_left_alone(self):
        model = empty_model()
        initialize(model, 5, 0.1)
        assert all(weight.is_meta for weight in model.parameters())


class TestRead:
    @pytest.fixture
    def folder(self, tmp_path):
        export_model(tmp_path, whole_model(5), UNEVEN)
        return tmp_path

    @pytest.mark.parametrize("kind", ["roberta", "bert"])
    def test_as_loaded(self, tmp_path, kind):
        shape = UNEVEN.replace(model_type=kind)
        export_model(tmp_path, whole_model(5, shape), shape)
        loaded = MaskedLM(shape)
        load_weights(loaded, tmp_path)
        read = read_weights(empty_model(shape), tmp_path)
        for _ in range(2):
            weights, _ = collected(read())
            assert same(weights, loaded)

    def test_one_parameter_at_a_time(self, folder):
        held = []
        for block in read_weights(empty_model(), folder)():
            if block.name.endswith("qkv.weight"):
                # A joined matrix is new memory; the one before it must be gone.
                assert all(before() is None for before in held)
                held.append(weakref.ref(block.values))
            del block
        assert len(held) == 2

    def test_heads_that_the_file_lacks(self, folder, caplog):
        path = folder / "model.safetensors"
        tensors = {name: value for name, value in load_file(path).items() if "pooler" not in name}
        save_file(tensors, path)
        weights, _ = collected(read_weights(empty_model(), folder)())
        assert empty_model().state_dict().keys() - weights.keys() == {"pooler.weight", "pooler.bias"}
        assert caplog.text.count("has no pooler; it starts from new weights") == 1

    def test_all_is_checked_before_any_is_asked_for(self, folder):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["lm_head.layer_norm.weight"][3] = float("nan")
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=r"lm_head\.layer_norm\.weight holds NaN or infinity"):
            read_weights(empty_model(), folder)

    def test_output_weights_of_their_own(self, folder):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"] + 1
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=r"lm_head\.decoder\.weight is not the same as the word"):
            read_weights(empty_model(), folder)
