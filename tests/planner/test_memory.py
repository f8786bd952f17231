"""The estimate of memory against the tensors that torch really keeps."""

import pytest

from maskwright.planner import Batch, Mesh, Shape, activation_bytes, rank_memory

SHAPE = Shape(64, 3, 4, 256, 300, 70)
BATCH = Batch(4, 4, 48, precision="fp32", mlm_probability=0.125)
TOKENS = 4 * 48
COUNT = SHAPE.num_parameters


def changed(**values):
    return Batch(**vars(BATCH) | values)


def kept_bytes(model, work) -> int:
    """Bytes of the floating-point tensors that a backward pass keeps, parameters apart."""
    import torch

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}
    alive = []  # a freed storage would lend its address to the next

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(kept.values())


@pytest.mark.parity
def test_a_layer_of_the_framework_keeps_what_is_counted():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {name: value for name, value in vars(SHAPE).items() if name != "num_hidden_layers"}
    kept = []
    for layers in (1, 3):
        config = transformers.RobertaConfig(
            **sizes,
            num_hidden_layers=layers,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="sdpa",
        )
        model = transformers.RobertaModel(config, add_pooling_layer=False).train()
        tokens = torch.randint(4, 300, (4, 48))
        kept.append(kept_bytes(model, lambda model=model, tokens=tokens: model(tokens)))
    batch = changed(dropout=False, mlm_probability=0.0)
    planned = [
        activation_bytes(Shape(**vars(SHAPE) | {"num_hidden_layers": n}), batch, TOKENS) for n in (1, 3)
    ]
    assert planned[1] - planned[0] == kept[1] - kept[0]


def masked_lm(dropout, layers=3):
    from maskwright.model.config import EncoderConfig
    from maskwright.model.encoder import initialize
    from maskwright.model.heads import MaskedLM

    shares = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = MaskedLM(EncoderConfig(**vars(SHAPE) | {"num_hidden_layers": layers}, **shares))
    initialize(model, 0, 0.02)
    return model


def losses(model):
    import numpy as np
    import torch

    from maskwright.model.dropout import DropoutKeys
    from maskwright.model.layout import Layout

    ids, targets = torch.arange(TOKENS) % 290 + 5, torch.arange(0, TOKENS, 8)
    return model(ids, Layout((48,) * 4), targets, ids[targets], DropoutKeys(np.arange(4)))[0]


def test_a_layer_on_the_cpu_keeps_nine_values_a_token():
    pytest.importorskip("torch")
    kept = []
    for layers in (1, 3):
        model = masked_lm(0.1, layers)
        for layer in model.encoder.layers:
            layer.memory = None  # each tensor in a storage of its own
        kept.append(kept_bytes(model, lambda model=model: losses(model)))
    # Norms keep a mean and a scale each; scale and shift of a norm are copied.
    assert kept[1] - kept[0] == 2 * (TOKENS * (9 * 64 * 4 + 2 * 8) + 4 * 64 * 4)


@pytest.mark.parametrize("length", [48, 4], ids=["values are larger", "gradients are larger"])
def test_workspaces_have_the_room_that_is_counted(length):
    pytest.importorskip("torch")
    import torch

    from maskwright.model.layout import Layout

    model = masked_lm(0.0)
    ids, targets = torch.arange(4 * length) % 290 + 5, torch.arange(0, 4 * length, 8)
    model(ids, Layout((length,) * 4), targets, ids[targets])[0].backward()
    spaces = [layer.memory.kept for layer in model.encoder.layers]
    spaces += [model.encoder.layers[-1].memory.gradients, model.encoder.scratch]
    room = sum(space._buffer.numel() for space in (*spaces, model.workspaces.table_gradient))
    batch = changed(dropout=False, sequence_length=length)
    planned = activation_bytes(SHAPE, batch, 4 * length, kind="cpu")
    tokens, predicted = 4 * length, 4 * length // 8
    beside = 4 * (5 * tokens * 64 + 4 * predicted * 64) + 8 * tokens * (1 + 2 * 3)
    aligning = 4 * 1024 * len(spaces)
    assert 4 * room == planned - beside + aligning


def test_the_formula_of_the_source():
    wide = {"precision": "bf16", "mlm_probability": 0.0}
    one, two = (
        activation_bytes(Shape(**vars(SHAPE) | {"num_hidden_layers": n}), changed(**wide), TOKENS)
        for n in (1, 2)
    )
    # 34 D without the mask of attention and its weights, which fused attention never stores.
    assert two - one == TOKENS * (34 * 64 + 4 * 4 + 16)


def test_sharing_layers_cuts_all_but_what_is_gathered():
    whole, half = (activation_bytes(SHAPE, changed(mlm_probability=0.0), TOKENS, t) for t in (1, 2))
    gathered = 3 * TOKENS * 2 * 64 * 4
    assert 2 * half == whole + gathered


def test_what_is_computed_again_is_not_kept():
    none, some, full = (
        activation_bytes(SHAPE, changed(checkpointing=name, mlm_probability=0.0), TOKENS)
        for name in ("none", "selective", "full")
    )
    embeddings = TOKENS * (2 * 4 * 64 + 64 + 8)
    layer = (none - embeddings) / 3
    inputs = TOKENS * 64 * 4
    assert full == pytest.approx(embeddings + 3 * inputs + layer)
    assert some == pytest.approx(embeddings + 1.5 * (inputs + layer) + layer)


def test_the_head_is_computed_for_predicted_positions():
    with_head, without = (activation_bytes(SHAPE, changed(mlm_probability=p), TOKENS) for p in (0.125, 0))
    assert with_head - without == 24 * 4 * (4 * 64 + 300)


STATES = [
    # mesh, precision, sequences, kind: bytes a parameter of weights, gradients, optimiser
    (Mesh("single"), "fp32", 4, "cuda", (4, 4, 8)),
    (Mesh("single"), "bf16", 4, "cuda", (6, 4, 8)),
    (Mesh("single"), "bf16", 8, "cuda", (6, 6, 8)),
    (Mesh("single"), "bf16", 4, "cpu", (4, 0, 8)),
    (Mesh("single"), "bf16", 8, "cpu", (4, 4, 8)),
    (Mesh("single"), "fp16", 8, "cpu", (6, 6, 8)),
    (Mesh("single"), "fp32", 8, "cpu", (4, 4, 8)),
    (Mesh("ddp", 2), "fp32", 8, "cuda", (4, 8, 8)),
    (Mesh("ddp", 2), "bf16", 8, "cuda", (6, 6, 8)),
    (Mesh("ddp", 2), "bf16", 16, "cuda", (6, 10, 8)),
    (Mesh("ddp", 2), "bf16", 16, "cpu", (4, 8, 8)),
    (Mesh("deepspeed", 2, zero_stage=0), "bf16", 8, "cuda", (6, 4, 8)),
    (Mesh("deepspeed", 2, zero_stage=1), "bf16", 8, "cuda", (4, 4, 4)),
    (Mesh("deepspeed", 2, zero_stage=2), "bf16", 8, "cuda", (4, 2, 4)),
    (Mesh("deepspeed", 2, zero_stage=3), "bf16", 8, "cuda", (3, 2, 4)),
    (Mesh("deepspeed", 2, zero_stage=3), "fp32", 8, "cuda", (2, 2, 4)),
]


@pytest.mark.parametrize(("mesh", "precision", "sequences", "kind", "state"), STATES)
def test_the_state_of_copies_and_of_zero(mesh, precision, sequences, kind, state):
    memory = rank_memory(SHAPE, mesh, changed(precision=precision, sequences=sequences), kind)
    found = (memory.weights, memory.gradients, memory.optimizer)
    assert [size / COUNT for size in found] == pytest.approx(state, rel=1e-4)
    assert memory.unsharded == 0
    inside = sum(found) + memory.activations + memory.buffers + memory.kept
    assert memory.holes == (round(0.05 * inside) if kind == "cpu" else 0)
    assert memory.total == inside + memory.holes


def test_shards_and_what_is_put_together():
    batch = changed(precision="bf16", sequences=16)
    layer, rest = SHAPE.layer_parameters(), SHAPE.rest_parameters()
    memory = rank_memory(SHAPE, Mesh("fsdp2", 4), batch)
    assert (memory.weights, memory.gradients, memory.optimizer) == (
        4 * -(-COUNT // 4),
        4 * -(-COUNT // 4),
        8 * -(-COUNT // 4),
    )
    assert memory.unsharded == 2 * (rest + 2 * layer + max(layer, rest))
    whole = rank_memory(SHAPE, Mesh("fsdp2", 4, reshard_after_forward=False), batch)
    assert whole.unsharded - memory.unsharded == 2 * layer
    pairs = rank_memory(SHAPE, Mesh("fsdp2", 4, replicas=2), batch)
    assert pairs.weights == 4 * -(-COUNT // 2)
    twice = rank_memory(SHAPE, Mesh("fsdp2", 4), changed(precision="bf16", sequences=32))
    assert twice.buffers - memory.buffers == 4 * rest // 4
    away = rank_memory(SHAPE, Mesh("fsdp2", 4), batch, cpu_offload=True)
    assert away.total == memory.unsharded + memory.buffers + memory.activations


def test_shards_on_the_cpu_are_planned_at_the_highest_moment():
    shape = Shape(**vars(SHAPE) | {"vocab_size": 1 << 16})
    layer, batch = SHAPE.layer_parameters(), changed(precision="bf16", sequences=16, micro_sequences=1)
    # Where two layers are put together, where one is laid out in fp32, and the sums of its shard.
    lent = 2 * 2 * layer + 4 * layer + 4 * layer // 2
    found, rest = rank_memory(shape, Mesh("fsdp2", 2), batch, "cpu"), shape.rest_parameters()
    # The end: laid out in fp32; then the sums of two micro-batches meet, while a message goes and one comes.
    assert (found.unsharded, found.buffers) == (0, lent + 4 * rest + 4 * rest // 2 + 2 * 4 * (1 << 20))
    activations = activation_bytes(shape, batch, 48, kind="cpu")
    assert found.activations < activations
    # What the pass had beside what stays is still there, in holes of the heap.
    assert found.kept == activations - found.activations + 2 * (rest + 2 * layer + layer // 2)
    # The beginning: all activations, and a layer on its way.
    many = changed(precision="bf16", sequences=128, micro_sequences=32)
    first, rest = rank_memory(SHAPE, Mesh("fsdp2", 2), many, "cpu"), SHAPE.rest_parameters()
    assert first.activations == activation_bytes(SHAPE, many, 32 * 48, kind="cpu")
    assert first.unsharded == 2 * (rest + 2 * layer + layer // 2)
    assert first.buffers == lent
    assert first.kept == 4 * rest + 4 * rest // 2 + 2 * 4 * rest


def test_one_shard_on_the_cpu_is_divided_and_not_sent():
    shape = Shape(**vars(SHAPE) | {"vocab_size": 1 << 16})
    batch = changed(precision="fp32", sequences=8, micro_sequences=1)
    found = rank_memory(shape, Mesh("fsdp2", 1, 2), batch, "cpu")
    layer, rest = shape.layer_parameters(2), shape.rest_parameters(2)
    assert found.buffers == 2 * 4 * layer + 4 * 64 * (1 << 15) + 3 * 4 * rest
    assert found.activations == 0


@pytest.mark.parametrize(("vocabulary", "piece"), [(20_000, 20_000 * 64), (100_000, 1 << 22)])
def test_copies_on_the_cpu_add_gradients_up_in_pieces(vocabulary, piece):
    shape = Shape(**vars(SHAPE) | {"vocab_size": vocabulary})
    once, twice = (
        rank_memory(shape, Mesh("single"), changed(precision="bf16", sequences=n, micro_sequences=1), "cpu")
        for n in (1, 2)
    )
    assert once.buffers == 8 * piece
    assert twice.buffers == 8 * piece + 4 * piece
    # What goes when the pass ends is still in holes of the heap.
    assert twice.activations < once.activations
    assert twice.kept == once.activations - twice.activations


def test_parameters_of_ranks_that_share_layers():
    shape = Shape(64, 3, 4, 256, 301, 70)
    assert shape.rank_parameters(1) == shape.num_parameters
    halves = 3 * (4 * 64**2 + 2 * 64 * 256 + 3 * 64 + 256) // 2
    both = 3 * 6 * 64 + 71 * 64 + 64**2 + 5 * 64
    assert shape.rank_parameters(2) == halves + both + 151 * 65
