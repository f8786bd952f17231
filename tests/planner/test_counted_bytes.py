"""What the planner says a rank sends, against what the engines really send over gloo.

Counted twice: the tensors of every collective as the framework hands them out, and, where gloo sends as a
ring does, the bytes that the kernel's sockets have delivered.
"""

import importlib.util
import os
import socket
import struct
from collections import defaultdict
from pathlib import Path

import pytest

from maskwright.planner import Batch, Mesh, Shape, step_traffic
from ranks import run_ranks

pytestmark = pytest.mark.distributed

SHAPE = Shape(128, 3, 4, 512, 2_048, 66)
# Bytes acknowledged by the other side, in the kernel's struct tcp_info.
_BYTES_ACKED = 120
_COLLECTIVES = {
    "allreduce_": ("all-reduce", 0),
    "allreduce": ("all-reduce", 0),
    "_allgather_base_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    # As shards travel between CPUs (parallel/cpu_messages.py): a message from each rank makes up a gather,
    # and ranks send each other the pieces that they add up.
    "broadcast_": ("all-gather", 0),
    "alltoall_base_": ("reduce-scatter", 1),
}


def kernel_bytes():
    """Bytes that this process has sent over TCP and that have arrived."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as one:
                if one.type == socket.SOCK_STREAM and one.family in (socket.AF_INET, socket.AF_INET6):
                    raw = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("<Q", raw, _BYTES_ACKED)[0]
        except OSError:
            continue  # closed meanwhile, or not connected
    return total


def _ranks(argument):
    """Size of a process group; 0 for other objects that a collective is given."""
    from torch.distributed import ProcessGroup

    try:
        return ProcessGroup.unbox(argument).size()
    except RuntimeError:
        return 0


def counter():
    """A mode that adds up the bytes a ring would send of every collective, by its kind."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.bytes, self.calls = defaultdict(float), defaultdict(int)

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            # Ranks tell each other a few norms with `allgather_`; the planner leaves them out.
            if func.namespace == "c10d" and not func.__name__.startswith("allgather_."):
                kind, place = _COLLECTIVES[func.__name__.split(".")[0]]
                tensors = args[place] if isinstance(args[place], list) else [args[place]]
                size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
                ranks = max(_ranks(arg) for arg in args if isinstance(arg, torch.ScriptObject))
                twice = 2 if kind == "all-reduce" else 1
                self.bytes[kind] += twice * size * (ranks - 1) / ranks
                self.calls[kind] += 1
            return func(*args, **(kwargs or {}))

    return Count()


def parts(precision, **options):
    from maskwright.model.config import EncoderConfig
    from maskwright.model.encoder import initialize
    from maskwright.model.heads import MaskedLM
    from maskwright.parallel.factory import EngineParts
    from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

    model = MaskedLM(EncoderConfig(**vars(SHAPE), **options))
    initialize(model, 0, 0.02)
    return EngineParts(model, optimizer_factory(OptimizerConfig()), "cpu", precision, 1.0)


def micro_batch(sequences=4, length=64):
    import numpy as np
    import torch

    from maskwright.model.dropout import DropoutKeys
    from maskwright.objectives.mlm import MaskedBatch

    tokens = sequences * length
    return MaskedBatch(
        ids_N=torch.arange(tokens) % 2_000 + 5,
        lengths=(length,) * sequences,
        targets_M=torch.arange(0, tokens, 8),
        labels_M=torch.arange(0, tokens, 8) % 2_000 + 5,
        counts={},
        samples=tuple(range(sequences)),
        dropout=DropoutKeys(np.arange(sequences)),
    )


def count_step(world, precision, **options):
    """Two micro-batches and a step of an engine; what was sent, of a second step."""
    from maskwright.objectives.mlm import masked_lm_loss
    from maskwright.parallel.config import ParallelConfig
    from maskwright.parallel.factory import make_engine

    config = ParallelConfig(**options)
    world = world.share_layers(config.tensor)
    engine = make_engine(config, parts(precision), world)
    for _ in range(2):
        world.wait()
        before, count = kernel_bytes(), counter()
        with count:
            for last in (False, True):
                engine.forward_backward(masked_lm_loss, micro_batch(), {"loss": 64}, last=last)
            engine.step(1e-4)
        world.wait()
        after = kernel_bytes()
    return dict(count.bytes), dict(count.calls), after - before


def shared_layers(world):
    """A pass through a model whose layers two ranks share."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    from maskwright.objectives.mlm import masked_lm_loss
    from maskwright.parallel.tensor_parallel import share_layers

    model = parts("fp32").model
    share_layers(
        model, init_device_mesh("cpu", (2,), mesh_dim_names=("tensor",))["tensor"], world.share_layers(2)
    )
    count = counter()
    with count:
        losses, _ = masked_lm_loss(model, micro_batch(), train=True)
        losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    return dict(count.bytes), dict(count.calls)


SETUPS = {
    "ddp": {"engine": "ddp", "bucket_mb": 1},
    "ddp, sums in bf16": {"engine": "ddp", "bucket_mb": 1, "reduce_precision": "bf16"},
}
if importlib.util.find_spec("maskwright.parallel.fsdp") is not None:
    SETUPS |= {
        "fsdp2": {"engine": "fsdp2"},
        "fsdp2, no resharding": {"engine": "fsdp2", "reshard_after_forward": False},
        "fsdp2, tensor": {"engine": "fsdp2", "tensor": 2},
    }


# Of four processes: two copies in two shards each, and two shards of two shares of the layers.
LARGER = {
    "hybrid": {"engine": "fsdp2", "replicas": 2},
    "hybrid, no resharding": {"engine": "fsdp2", "replicas": 2, "reshard_after_forward": False},
    "two by two": {"engine": "fsdp2", "tensor": 2},
    "shards": {"engine": "fsdp2"},
}


def everything(world):
    """All setups in one start of two processes."""
    found = {"shared": shared_layers(world)}
    for name, options in SETUPS.items():
        for precision in ("fp32", "bf16"):
            found[name, precision] = count_step(world, precision, **options)
    return found


@pytest.fixture(scope="module")
def counted():
    return run_ranks(2, everything)


def on_four_ranks(world):
    """All larger setups in one start of four processes."""
    return {
        (name, precision): count_step(world, precision, **options)
        for name, options in LARGER.items()
        for precision in ("fp32", "bf16")
    }


@pytest.fixture(scope="module")
def counted_on_four():
    return run_ranks(4, on_four_ranks)


def planned(options, precision, *, sequences, micro=4, ranks=2):
    """Bytes by kind of collective, as the planner says."""
    tensor = options.get("tensor", 1)
    mesh = Mesh(
        options["engine"],
        ranks // tensor,
        tensor,
        options.get("replicas", 1),
        reshard_after_forward=options.get("reshard_after_forward", True),
    )
    reduce = options.get("reduce_precision", "fp32")
    batch = Batch(sequences, micro, 64, mlm_probability=0.125, precision=precision, reduce_precision=reduce)
    found = defaultdict(float)
    for one in step_traffic(SHAPE, mesh, batch):
        found[one.collective] += one.sent_bytes
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SETUPS)
def test_an_engine_sends_what_is_planned(counted, name, precision):
    options = SETUPS[name]
    expected = planned(options, precision, sequences=8 * 2 // options.get("tensor", 1))
    for rank in (0, 1):
        sent, _, _ = counted[rank][name, precision]
        assert {kind for kind, size in sent.items() if size} == expected.keys()
        for kind, size in sent.items():
            assert size == pytest.approx(expected[kind], rel=0.02), kind


# Sums of hidden values are left to gloo, which sends twice as much for them.
@pytest.mark.parametrize("name", [name for name in SETUPS if "tensor" not in SETUPS[name]])
def test_the_kernel_sends_what_is_planned(counted, name):
    expected = sum(planned(SETUPS[name], "fp32", sequences=16).values())
    for rank in (0, 1):
        assert counted[rank][name, "fp32"][2] == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", LARGER)
def test_a_larger_mesh_sends_what_is_planned(counted_on_four, name, precision):
    options = LARGER[name]
    sequences = 8 * 4 // options.get("tensor", 1)
    expected = planned(options, precision, sequences=sequences, ranks=4)
    for rank in range(4):
        sent, _, _ = counted_on_four[rank][name, precision]
        assert {kind for kind, size in sent.items() if size} == expected.keys()
        for kind, size in sent.items():
            assert size == pytest.approx(expected[kind], rel=0.02), kind


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LARGER if "tensor" not in LARGER[name]])
def test_the_kernel_sends_what_is_planned_of_a_larger_mesh(counted_on_four, name):
    expected = sum(planned(LARGER[name], "fp32", sequences=32, ranks=4).values())
    sent = [counted_on_four[rank][name, "fp32"][2] for rank in range(4)]
    # A message to all goes through some ranks and not through others, so only their mean is that of a ring.
    assert sum(sent) / 4 == pytest.approx(expected, rel=0.02)


def test_ranks_that_share_layers_send_what_is_planned(counted):
    mesh = Mesh("fsdp2", 1, 2)
    batch = Batch(4, 4, 64, mlm_probability=0.125, precision="fp32")
    expected = defaultdict(float)
    for one in step_traffic(SHAPE, mesh, batch):
        if one.purpose != "gradients of what all have":
            expected[one.collective] += one.sent_bytes
    for rank in (0, 1):
        sent, calls = counted[rank]["shared"]
        assert sent == pytest.approx(expected, rel=0.02)
        # Two halves of three layers both ways, the lookup, and the last gather.
        assert calls == {"all-gather": 14, "reduce-scatter": 13, "all-reduce": 4}
