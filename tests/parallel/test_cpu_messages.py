"""Weights and sums that travel between CPUs, against what the framework's own collectives give."""

import pytest
import torch

from maskwright.parallel.cpu_messages import Buffers, GatheredShards, SummedShards
from ranks import run_ranks

CPU = torch.device("cpu")


def test_a_buffer_is_lent_again_when_nobody_holds_it():
    buffers = Buffers(2)
    first = buffers.take(100, torch.float32, CPU)
    view = first[10:20]
    second = buffers.take(50, torch.float32, CPU)
    third = buffers.take(50, torch.float32, CPU)
    places = [tensor.untyped_storage().data_ptr() for tensor in (first, second, third)]
    assert len(set(places)) == 3
    del first
    assert buffers.take(100, torch.float32, CPU).untyped_storage().data_ptr() not in places
    del view
    again = buffers.take(80, torch.float32, CPU)
    assert again.untyped_storage().data_ptr() == places[0]
    assert again.shape == (80,)


def test_a_buffer_grows_and_changes_its_type_while_it_is_free():
    buffers = Buffers(1)
    assert buffers.take(10, torch.float32, CPU).untyped_storage().nbytes() == 40
    assert buffers.take(30, torch.float32, CPU).untyped_storage().nbytes() == 120
    assert buffers.take(8, torch.bfloat16, CPU).untyped_storage().nbytes() == 16
    held = buffers.take(8, torch.bfloat16, CPU)
    assert buffers.take(9, torch.bfloat16, CPU).untyped_storage().nbytes() == 18
    assert held.untyped_storage().nbytes() == 16


def messages(world, pieces):
    """What each rank gets, and what the framework's own collectives give."""
    import torch.distributed as dist

    from maskwright.parallel import cpu_messages

    cpu_messages._PIECE_VALUES = pieces
    group, buffers = dist.group.WORLD, Buffers(1)
    found = []
    for size, dtype in ((1, torch.float32), (1000, torch.float32), (1000, torch.bfloat16)):
        generator = torch.Generator().manual_seed(world.rank)
        gradients = torch.randn(size * world.size, generator=generator).to(dtype)
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
def test_four_ranks_get_what_collectives_give():
    for rank in run_ranks(4, messages, 64):
        for found, expected in rank:
            tolerance = 2**-7 if found.dtype == torch.bfloat16 else 1e-6
            assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
