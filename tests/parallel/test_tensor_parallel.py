"""Layers shared between ranks: the sums, the guesses and every gradient of one process."""

import numpy as np
import pytest
import torch

from maskwright.core.errors import ConfigError
from maskwright.model.config import MODEL_SIZES, EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout
from maskwright.parallel.tensor_parallel.group import HeadKeys, SharingGroup, TokenKeys, TokenPart
from maskwright.parallel.tensor_parallel.share import check_shares, placement_of
from ranks import run_ranks

pytestmark = pytest.mark.distributed
SHAPE = {
    "vocab_size": 53,  # not a multiple of anything
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
ROBERTA = EncoderConfig(**SHAPE)
BERT = EncoderConfig(model_type="bert", next_sentence=True, type_vocab_size=2, **SHAPE)
LENGTHS = (13, 1, 7, 20, 4)


def make_model(config):
    model = MaskedLM(config)
    initialize(model, 3, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.linspace(-0.1, 0.1, len(parameter)))
    return model


def inputs(config, lengths=LENGTHS):
    """Arguments of a model's forward, with dropout."""
    generator = torch.Generator().manual_seed(1)
    total = sum(lengths)
    ids = torch.randint(0, config.vocab_size, (total,), generator=generator)
    targets = torch.randperm(total, generator=generator)[: max(1, total // 3)].sort().values
    labels = torch.randint(0, config.vocab_size, (len(targets),), generator=generator)
    keys = DropoutKeys(np.arange(len(lengths), dtype=np.int64) + 7)
    types = following = None
    if config.next_sentence:
        types = torch.randint(0, 2, (total,), generator=generator)
        following = torch.randint(0, 2, (len(lengths),), generator=generator)
    return ids, Layout(lengths), targets, labels, keys, types, following


def losses_of(model, arguments):
    """The sums, and the loss of which gradients are taken."""
    loss, correct, *following = model(*arguments)
    total = loss / 10 + (following[0] / 3 if following else 0)
    return [value.item() for value in (loss, correct, *following)], total


def single(config, arguments):
    """What one process computes: sums, gradients and encoded tokens."""
    model = make_model(config)
    sums, total = losses_of(model, arguments)
    total.backward()
    with torch.no_grad():
        hidden = model.encode(*arguments[:2], None, arguments[5])
        logits = model.logits(hidden[:9])
    return sums, {name: value.grad for name, value in model.named_parameters()}, hidden, logits


def shared_model(config, world):
    from torch.distributed.device_mesh import init_device_mesh

    from maskwright.parallel.tensor_parallel import share_layers

    model, mesh = make_model(config), init_device_mesh("cpu", (world.size,), mesh_dim_names=("tensor",))
    share_layers(model, mesh, world.share_layers(world.size))
    return model, mesh.get_group()


def whole_gradients(model, group):
    """Gradients as an engine makes them: partial ones added up, then put together."""
    from maskwright.parallel.tensor_parallel import partial_parameters, sum_partial_gradients

    named = dict(model.named_parameters())
    partial = sorted(partial_parameters(model))
    sum_partial_gradients([named[name].grad.to_local() for name in partial], group)
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        assert parameter.grad.placements == parameter.placements, name
    return {name: value.grad.full_tensor() for name, value in named.items()}


def check_equal(world, config, lengths):
    """Compare with one process, which every rank computes for itself."""
    arguments = inputs(config, lengths)
    sums, grads, hidden, logits = single(config, arguments)
    model, group = shared_model(config, world)
    found, total = losses_of(model, arguments)
    total.backward()
    assert found == pytest.approx(sums, rel=1e-5)
    assert found[1] == sums[1]
    ours = whole_gradients(model, group)
    assert ours.keys() == grads.keys()
    for name, grad in grads.items():
        scale = float(grad.abs().max())
        # One token alone has nothing to attend to.
        assert scale > 0 or lengths == (1,), name
        assert float((ours[name] - grad).abs().max()) <= 1e-5 * max(scale, 1.0), name
    with torch.no_grad():
        again = model.encode(*arguments[:2], None, arguments[5])
        assert float((again - hidden).abs().max()) <= 1e-5
        assert float((model.logits(again[:9]) - logits).abs().max()) <= 1e-5
    return found


def check_all(world):
    found = [check_equal(world, config, LENGTHS) for config in (ROBERTA, BERT)]
    # Equal lengths; fewer tokens than ranks; a number of tokens that ranks divide.
    for lengths in ((8, 8, 8), (1,), (6, 10)):
        found.append(check_equal(world, ROBERTA, lengths))
    return found


def check_two(world):
    found = check_all(world)
    check_ties(world)
    check_logit_gradients(world)
    check_meta(world)
    check_half_precision(world)
    check_refusals(world)
    return found


def check_ties(world):
    """Of equal best logits the first counts, wherever the ranks are cut; and so does NaN not."""
    import torch.distributed as dist

    from maskwright.model.loss import vocabulary_cross_entropy
    from maskwright.parallel.tensor_parallel.vocabulary import shared_cross_entropy

    table = torch.zeros(10, 4)
    bias = torch.tensor([0.0, 2, 1, 2, 0, 2, 0, 2, 0, 2])
    labels = torch.tensor([1, 3, 5, 9, 0])
    hidden = torch.ones(5, 4)
    expected = vocabulary_cross_entropy(hidden, table, bias, labels)
    rows = slice(5 * world.rank, 5 * world.rank + 5)
    group = dist.group.WORLD
    found = shared_cross_entropy(hidden, table[rows], bias[rows], labels, rows.start, 10, group)
    assert found[1].item() == expected[1].item() == 1
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    check_tiles(world, group)
    bias[8] = float("nan")
    loss, correct = shared_cross_entropy(hidden, table[rows], bias[rows], labels, rows.start, 10, group)
    assert torch.isnan(loss)
    none = torch.zeros(0, dtype=torch.int64)
    loss, correct = shared_cross_entropy(hidden[:0], table[rows], bias[rows], none, rows.start, 10, group)
    assert (loss.item(), correct.item()) == (0, 0)


def check_tiles(world, group):
    """Rows that fill a tile up change neither sums nor gradients."""
    from maskwright.parallel.tensor_parallel.vocabulary import shared_cross_entropy

    generator = torch.Generator().manual_seed(5)
    shapes = ((10, 4), (7, 4), (10,))
    table, hidden, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    labels = torch.tensor([0, 9, 5, 4, 5, 6, 2])
    rows, found = slice(5 * world.rank, 5 * world.rank + 5), []
    for tile in (1, 8):
        leaves = [value.clone().requires_grad_() for value in (hidden, table[rows], bias[rows])]
        loss, correct = shared_cross_entropy(*leaves, labels, rows.start, 10, group, tile)
        loss.backward()
        found.append([loss.detach(), correct, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def check_half_precision(world):
    """In bf16 the ranks' exchanges add little to its roundings."""
    arguments = inputs(BERT)
    sums, *_ = single(BERT, arguments)
    model, _ = shared_model(BERT, world)
    model.bfloat16()
    found, total = losses_of(model, arguments)
    total.backward()
    assert all(value.grad.dtype == torch.bfloat16 for value in model.parameters())
    assert found[0] == pytest.approx(sums[0], rel=1e-2)


def check_logit_gradients(world):
    """Logits may be part of a loss that all ranks compute."""
    arguments = inputs(ROBERTA)
    one = make_model(ROBERTA)
    model, group = shared_model(ROBERTA, world)
    for each in (one, model):
        hidden = each.encode(*arguments[:2])
        logits = each.logits(hidden[::5])
        (logits.softmax(-1)[:, ::7].sum() + logits.square().mean()).backward()
    ours = whole_gradients(model, group)
    for name, parameter in one.named_parameters():
        assert float((ours[name] - parameter.grad).abs().max()) <= 1e-5, name


def check_meta(world):
    """A model without values can be shared first and filled later."""
    from torch.distributed.device_mesh import init_device_mesh

    from maskwright.parallel.tensor_parallel import share_layers

    with torch.device("meta"):
        empty = MaskedLM(ROBERTA)
    mesh = init_device_mesh("cpu", (world.size,), mesh_dim_names=("tensor",))
    share_layers(empty, mesh, world.share_layers(world.size))
    assert all(value.to_local().is_meta for value in empty.parameters())
    model, _ = shared_model(ROBERTA, world)
    empty.to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    arguments = inputs(ROBERTA)
    assert losses_of(empty, arguments)[0] == losses_of(model, arguments)[0]


def check_refusals(world):
    with pytest.raises(ConfigError, match="num_attention_heads 3, which is no multiple"):
        shared_model(ROBERTA.replace(hidden_size=24, num_attention_heads=3), world)
    model, _ = shared_model(ROBERTA, world)
    ids, layout = inputs(ROBERTA)[:2]
    with pytest.raises(
        ValueError, match="token types were given, but the model has only one; set type_vocab"
    ):
        model.encode(ids, layout, None, torch.zeros_like(ids))
    with pytest.raises(ValueError, match="a sequence has 25 tokens"):
        model.encode(torch.zeros(25, dtype=torch.int64), Layout([25]))


def test_two_ranks_compute_what_one_does():
    first, second = run_ranks(2, check_two)
    assert first == second


@pytest.mark.slow
def test_four_ranks_compute_what_one_does():
    first, *others = run_ranks(4, check_all)
    assert all(other == first for other in others)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [LENGTHS, (1,), (2, 2)], ids=str)
def test_tokens_of_all_ranks_are_all_tokens(lengths, size):
    layout = Layout(lengths)
    values = torch.arange(1, layout.num_tokens + 1)
    parts = [TokenPart(layout, rank, size) for rank in range(size)]
    taken = torch.cat([part.take(values) for part in parts])
    assert len({sum(part.lengths) for part in parts}) == 1
    assert torch.equal(taken[: len(values)], values)
    assert not taken[len(values) :].any()
    assert len(taken) - len(values) < size
    for part in parts:
        for piece in part.pieces:
            assert piece.row is None or piece.length == lengths[piece.row]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_masks_of_all_ranks_are_those_of_one_process(size):
    layout, keys, width = Layout(LENGTHS), DropoutKeys(np.arange(5, dtype=np.int64)), 6
    whole = keys.keep(range(5), [length * width for length in LENGTHS], 9, 0.3, torch.float32)
    found = []
    for rank in range(size):
        part = TokenPart(layout, rank, size)
        sizes = [count * width for count in part.lengths]
        found.append(TokenKeys(keys, part).keep(range(len(sizes)), sizes, 9, 0.3, torch.float32))
    assert torch.equal(torch.cat(found)[: len(whole)], whole)
    rows, heads = (3, 1), 2
    sizes = [heads * LENGTHS[row] ** 2 for row in rows]
    whole = keys.keep(rows, [value * size for value in sizes], 4, 0.3, torch.float32)
    each = [HeadKeys(keys, rank, size).keep(rows, sizes, 4, 0.3, torch.float32) for rank in range(size)]
    first, second = zip(*(part.split(sizes) for part in each), strict=True)
    assert torch.equal(torch.cat([*first, *second]), whole)


def test_generators_of_other_devices_differ_by_rank():
    keys, seeds = DropoutKeys(np.arange(3, dtype=np.int64)), []
    with torch.random.fork_rng():
        torch.manual_seed(1)
        SharingGroup(None, 0, 2).seed(keys, torch.device("cpu"))
        assert torch.initial_seed() == 1
        for rank in (0, 1, 0):
            SharingGroup(None, rank, 2).seed(keys, torch.device("meta"))
            seeds.append(torch.initial_seed())
    assert seeds[0] == seeds[2] != seeds[1]


@pytest.mark.parametrize("size", ["xl", "xxl"])
def test_the_largest_shapes_can_be_shared_by_eight(size):
    config = EncoderConfig(**MODEL_SIZES[size])
    check_shares(config, 8)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in MaskedLM(config).named_parameters()}
    cut = {name: placement_of(name) for name in shapes}
    for name, placement in cut.items():
        if placement.is_shard() and name not in ("head_bias", "encoder.embeddings.word.weight"):
            assert shapes[name][placement.dim] % 8 == 0, name
    shared = sum(shapes[name].numel() for name, placement in cut.items() if placement.is_shard())
    # What every rank has a copy of is small.
    assert shared / sum(shape.numel() for shape in shapes.values()) > 0.99
    # A rank has whole heads: as many rows of queries, keys and values.
    assert shapes["encoder.layers.0.qkv.weight"][0] // 8 % (3 * config.head_size) == 0


def test_where_parameters_are_cut():
    cut = {name: placement_of(name) for name, _ in make_model(BERT).named_parameters()}
    by_rows = {name for name, placement in cut.items() if placement.is_shard(0)}
    by_columns = {name for name, placement in cut.items() if placement.is_shard(1)}
    layer = "encoder.layers.1."
    assert {name for name in by_rows if layer in name} == {
        f"{layer}{part}.{end}" for part in ("qkv", "intermediate") for end in ("weight", "bias")
    }
    assert {name for name in by_columns if layer in name} == {
        f"{layer}attention_output.weight",
        f"{layer}output.weight",
    }
    assert {name for name in by_rows | by_columns if ".layers." not in name} == {
        "encoder.embeddings.word.weight",
        "head_bias",
    }


@pytest.mark.parametrize(
    ("changes", "tensor", "said"),
    [
        (
            {},
            3,
            '"parallel.tensor" is 3, but the model has num_attention_heads 4, which is no multiple of it',
        ),
        ({"intermediate_size": 66}, 4, "has intermediate_size 66, which is no multiple"),
        (
            {"vocab_size": 9, "hidden_size": 64, "num_attention_heads": 8},
            8,
            "but with vocab_size 9 the last rank would have no entry; set a smaller number",
        ),
    ],
)
def test_models_that_cannot_be_dealt_out(changes, tensor, said):
    with pytest.raises(ConfigError, match=said):
        check_shares(ROBERTA.replace(**changes), tensor)


def check_sharded_around(world):
    """FSDP2 around shared layers: two ranks share a layer, and two hold halves of what each of them has."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from maskwright.parallel.tensor_parallel import (
        partial_parameters,
        share_layers,
        sum_partial_gradients,
    )

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    model = make_model(BERT)
    share_layers(model, mesh["tensor"], world.share_layers(2))
    names = partial_parameters(model)
    for part in (*model.encoder.layers, model):
        fully_shard(part, mesh=mesh["shard"])
        part.set_force_sum_reduction_for_comms(True)
        part.set_gradient_divide_factor(1.0)
    assert partial_parameters(model) == names
    batches = [inputs(BERT), inputs(BERT, (5, 19))]
    one = make_model(BERT)
    for batch in batches:
        losses_of(one, batch)[1].backward()
    _, total = losses_of(model, batches[world.rank // 2])
    total.backward()
    named = dict(model.named_parameters())
    sum_partial_gradients([named[name].grad.to_local() for name in sorted(names)], mesh["tensor"].get_group())
    for name, parameter in one.named_parameters():
        found = named[name].grad.full_tensor()
        assert float((found - parameter.grad).abs().max()) <= 1e-5, name
        assert torch.equal(named[name].full_tensor(), parameter), name


@pytest.mark.slow
def test_weights_may_be_sharded_around_shared_layers():
    run_ranks(4, check_sharded_around)
