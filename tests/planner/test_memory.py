"""The estimate of memory against the tensors that torch really keeps."""

import pytest

from maskwright.core.errors import ConfigError
from maskwright.planner import num_parameters, training_memory_bytes

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 300,
    "max_position_embeddings": 70,
}
BATCH = {"sequence_length": 48, "micro_batch_size": 4}


def kept_bytes(dropout: float, attention: str) -> int:
    """Bytes that the backward pass of the encoder keeps, parameters apart."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(
        **SHAPE,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    model = transformers.RobertaModel(config, add_pooling_layer=False).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}
    alive = []  # a freed storage would lend its address to the next

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    tokens = torch.randint(4, 300, (BATCH["micro_batch_size"], BATCH["sequence_length"]))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(tokens)
    return sum(kept.values())


@pytest.mark.parity
@pytest.mark.parametrize(
    ("dropout", "attention", "fused"),
    [(0.0, "eager", False), (0.1, "eager", False), (0.0, "sdpa", True), (0.1, "sdpa", False)],
)
def test_activations_equal_what_torch_keeps(dropout, attention, fused):
    estimate = training_memory_bytes(
        **SHAPE,
        **BATCH,
        dropout=dropout > 0,
        dropout_mask_bytes=4,
        fused_attention=fused,
        head_positions_share=0.0,
    )
    assert estimate.activations == kept_bytes(dropout, attention)


def test_the_formula_of_the_source():
    wide = SHAPE | {"num_hidden_layers": 1}
    options = {"compute_bytes": 2, "fused_attention": False, "head_positions_share": 0.0}
    one = training_memory_bytes(**wide, **BATCH, **options).activations
    two = training_memory_bytes(**wide | {"num_hidden_layers": 2}, **BATCH, **options).activations
    assert two - one == 48 * 4 * (34 * 64 + 5 * 4 * 48 + 16)


def test_the_state():
    count = num_parameters(**SHAPE)
    memory = training_memory_bytes(**SHAPE, **BATCH)
    assert (memory.parameters, memory.master_weights) == (4 * count, 0)
    assert (memory.gradients, memory.optimizer) == (4 * count, 8 * count)
    assert memory.total == 16 * count + memory.activations
    half = training_memory_bytes(**SHAPE, **BATCH, compute_bytes=2, gradient_bytes=2)
    assert (half.parameters, half.master_weights, half.gradients) == (2 * count, 4 * count, 2 * count)
    assert half.activations < memory.activations


def test_a_head_on_masked_positions_saves_most_of_its_memory():
    def head(share: float) -> int:
        return training_memory_bytes(**SHAPE, **BATCH, head_positions_share=share).activations

    assert head(0.15) - head(0) == pytest.approx(0.15 * (head(1) - head(0)), rel=1e-3)
    assert head(1) - head(0) == 48 * 4 * 4 * (4 * 64 + 3 * 300)


def test_sizes_that_make_no_sense():
    with pytest.raises(ConfigError, match="compute_bytes is 3, expected 4"):
        training_memory_bytes(**SHAPE, **BATCH, compute_bytes=3)
    with pytest.raises(ConfigError, match="the micro-batch is 0 x 48, expected at least 1 x 1"):
        training_memory_bytes(**SHAPE, **BATCH | {"micro_batch_size": 0})
