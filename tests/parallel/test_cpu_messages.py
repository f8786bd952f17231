"""Weights and sums that travel between CPUs, against what the framework's own collectives give."""

import math

import pytest
import torch

from maskwright.parallel.cpu_messages import Buffers, GatheredShards, SummedShards, lay_out, values_to_send
from ranks import run_ranks

CPU = torch.device("cpu")
# Values for each rank, and their type.
SIZES = ((1, torch.float32), (1000, torch.float32), (1000, torch.bfloat16))


def place(tensor):
    return tensor.untyped_storage().data_ptr()


def test_a_buffer_of_its_size_is_lent_again_when_nobody_holds_it():
    buffers = Buffers([100, 50], torch.float32, CPU)
    buffers.reserve()
    first, second = (buffers.take(100, torch.float32, CPU) for _ in range(2))
    half = buffers.take(50, torch.float32, CPU)
    kept, view = place(first), first[10:20]
    assert len({place(first), place(second), place(half)}) == 3
    del first
    assert place(buffers.take(100, torch.float32, CPU)) != kept
    del view
    again = buffers.take(100, torch.float32, CPU)
    assert place(again) == kept
    assert again.shape == (100,)


@pytest.mark.parametrize(
    ("size", "dtype"), [(99, torch.float32), (101, torch.float32), (100, torch.bfloat16)]
)
def test_what_does_not_fit_is_fresh_memory(size, dtype):
    buffers = Buffers([100], torch.float32, CPU)
    buffers.reserve()
    fresh = buffers.take(size, dtype, CPU)
    assert (fresh.shape, fresh.dtype) == ((size,), dtype)
    kept = buffers.take(100, torch.float32, CPU)
    assert place(kept) != place(fresh)
    fresh.fill_(1)
    kept.fill_(2)
    assert (fresh == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_gradients_are_laid_out_as_the_framework_does(ranks, dtype):
    generator = torch.Generator().manual_seed(ranks)
    shapes = [(8, 3), (7, 2, 2), (1, 5), (3,), (2, 1)]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    values = sum(-(-shape[0] // ranks) * math.prod(shape[1:]) for shape in shapes)
    found, expected = torch.full((ranks, values), 9.0), torch.full((ranks, values), 9.0)
    lay_out(tensors, 0, ranks, out=found)
    torch._chunk_cat(tensors, 0, ranks, out=expected)
    assert torch.equal(found, expected)


def test_values_to_send_fill_up_the_rows_of_the_last_rank():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 1, bias=False))
    assert values_to_send(model, 1) == 15 + 5 + 5
    assert values_to_send(model, 2) == 18 + 6 + 10


def drawn(rank, size, dtype):
    return torch.randn(size, generator=torch.Generator().manual_seed(rank)).to(dtype)


def messages(world, pieces):
    """What each rank gets, and what the framework's own collectives give."""
    import torch.distributed as dist

    from maskwright.parallel import cpu_messages

    cpu_messages._PIECE_VALUES = pieces
    group, buffers = dist.group.WORLD, Buffers([], torch.float32, CPU)
    found = []
    for size, dtype in SIZES:
        gradients = drawn(world.rank, size * world.size, dtype)
        sums, expected = torch.empty(size, dtype=dtype), torch.empty(size, dtype=dtype)
        SummedShards(buffers)(sums, gradients, group, dist.ReduceOp.SUM)
        dist.reduce_scatter_single(expected, gradients, group=group)
        found.append((sums, expected))
        gather, whole = GatheredShards(buffers), torch.empty(size * world.size, dtype=dtype)
        out = gather.allocate((size * world.size,), dtype=dtype, device=CPU)
        out[world.rank * size : (world.rank + 1) * size] = sums
        assert gather(out, out[world.rank * size : (world.rank + 1) * size], group) is None
        dist.all_gather_single(whole, sums, group=group)
        found.append((out.clone(), whole))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("pieces", [1 << 20, 64])
def test_two_ranks_get_what_collectives_give(pieces):
    for rank in run_ranks(2, messages, pieces):
        for found, expected in rank:
            assert torch.equal(found, expected)


@pytest.mark.distributed
@pytest.mark.slow
def test_four_ranks_round_their_sum_once():
    for rank, found in enumerate(run_ranks(4, messages, 64)):
        for number, (size, dtype) in enumerate(SIZES):
            exact = sum(drawn(other, 4 * size, dtype).double() for other in range(4))
            exact = exact[rank * size : (rank + 1) * size]
            tolerance = 2**-8 if dtype == torch.bfloat16 else 1e-6
            torch.testing.assert_close(found[2 * number][0].double(), exact, rtol=tolerance, atol=1e-6)
        for gathered, whole in found[1::2]:
            assert torch.equal(gathered, whole)
