"""What the planner says a sharded rank holds, against what its C library has handed out at the most."""

import sys

import pytest

from heap import handed_out, watcher
from maskwright.planner import Batch, Mesh, Shape, rank_memory
from ranks import run_ranks

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc counts what it hands out"),
]

LENGTH = 128
SHAPES = {
    # A vocabulary that two ranks share evenly, and one whose rows are padded when gradients are laid out.
    "even": Shape(512, 4, 8, 2_048, 16_000, LENGTH + 2),
    "uneven": Shape(384, 3, 6, 1_536, 20_001, LENGTH + 2),
}
# Shape, precision, sequences of a micro-batch, micro-batches.
SETUPS = [
    ("even", "fp32", 4, 1),
    ("even", "bf16", 8, 2),
    ("uneven", "fp32", 8, 2),
    ("uneven", "bf16", 16, 1),
]


def micro_batch(sequences):
    import numpy as np
    import torch

    from maskwright.model.dropout import DropoutKeys
    from maskwright.objectives.mlm import MaskedBatch

    ids = torch.arange(sequences * LENGTH) % 8_000 + 5
    targets = torch.arange(0, sequences * LENGTH, 8)
    return MaskedBatch(
        ids_N=ids,
        lengths=(LENGTH,) * sequences,
        targets_M=targets,
        labels_M=ids[targets],
        counts={},
        samples=tuple(range(sequences)),
        dropout=DropoutKeys(np.arange(sequences)),
    )


def most_bytes(world, name, precision, sequences, micro_batches):
    """Bytes at the highest point of a second step, beyond those before there was a model."""
    import gc

    from maskwright.model.config import EncoderConfig
    from maskwright.model.encoder import initialize
    from maskwright.model.heads import MaskedLM
    from maskwright.objectives.mlm import masked_lm_loss
    from maskwright.parallel.config import ParallelConfig
    from maskwright.parallel.factory import EngineParts, make_engine
    from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

    gc.collect()
    before = handed_out()
    model = MaskedLM(EncoderConfig(**vars(SHAPES[name])))
    initialize(model, 0, 0.02)
    parts = EngineParts(model, optimizer_factory(OptimizerConfig()), "cpu", precision, 1.0)
    engine = make_engine(ParallelConfig(engine="fsdp2"), parts, world)
    batch = micro_batch(sequences)
    for _ in range(2):
        watch = watcher()
        with watch:
            for number in range(micro_batches):
                last = number == micro_batches - 1
                engine.forward_backward(masked_lm_loss, batch, {"loss": 1_000}, last=last)
            engine.step(1e-4)
    return watch.most - before


def everything(world):
    import torch

    torch.ones(64, 64) @ torch.ones(64, 64)  # what the libraries take for themselves
    most_bytes(world, *SETUPS[0])
    return [most_bytes(world, *setup) for setup in SETUPS]


@pytest.fixture(scope="module")
def measured():
    return run_ranks(2, everything)


@pytest.mark.parametrize("number", range(len(SETUPS)))
def test_a_rank_holds_what_is_planned(measured, number):
    name, precision, sequences, micro_batches = SETUPS[number]
    batch = Batch(
        2 * sequences * micro_batches, sequences, LENGTH, mlm_probability=0.125, precision=precision
    )
    planned = rank_memory(SHAPES[name], Mesh("fsdp2", 2), batch, "cpu")
    for rank in measured:
        assert rank[number] == pytest.approx(planned.total - planned.kept - planned.holes, rel=0.1)
