"""Activation checkpoints and compiling in shared layers."""

import numpy as np
import pytest
import torch

from maskwright.model.acceleration import accelerate_model
from maskwright.model.config import EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout
from ranks import run_ranks

pytestmark = pytest.mark.distributed
LENGTHS = (9, 4, 12)
CONFIG = EncoderConfig(
    vocab_size=41,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=24,
    attention_probs_dropout_prob=0.2,
)


def gradients(config, world, lengths=LENGTHS, recompute=False, **acceleration):
    """The loss and this rank's gradients of shared layers, and what autograd kept of activations."""
    from torch.distributed.device_mesh import init_device_mesh

    from maskwright.parallel.tensor_parallel import share_layers

    model = MaskedLM(config)
    initialize(model, 1, 0.1)
    mesh = init_device_mesh("cpu", (world.size,), mesh_dim_names=("tensor",))
    share_layers(model, mesh, world.share_layers(world.size))
    if acceleration:
        accelerate_model(model, **acceleration)
    for layer in model.encoder.layers:
        layer.recompute_feed_forward = recompute
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 41, (sum(lengths),), generator=generator)
    keys, kept = DropoutKeys(np.arange(len(lengths), dtype=np.int64)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        loss, _ = model(ids, Layout(lengths), torch.arange(0, len(ids), 4), ids[::4].clone(), keys)
    loss.backward()
    found = {name: value.grad.to_local() for name, value in model.named_parameters()}
    return loss.detach(), found, sum(kept)


def check(world):
    loss, grads, kept = gradients(CONFIG, world)
    for again in ("full", "selective"):
        found = gradients(CONFIG, world, activation_checkpointing=again)
        assert torch.equal(found[0], loss)
        for name, grad in grads.items():
            assert torch.equal(found[1][name], grad), (again, name)
        assert found[2] < (0.5 if again == "full" else 0.75) * kept
    found = gradients(CONFIG, world, recompute=True)
    assert torch.equal(found[0], loss)
    assert all(torch.equal(found[1][name], grad) for name, grad in grads.items())
    assert found[2] < 0.9 * kept
    # Compiled attention draws masks by the device's generator, so nothing is dropped there here.
    still = CONFIG.replace(attention_probs_dropout_prob=0.0)
    for lengths in (LENGTHS, (8, 8)):
        loss, grads, _ = gradients(still, world, lengths)
        for again in ("none", "full"):
            options = {"compile": True, "backend": "aot_eager", "activation_checkpointing": again}
            found = gradients(still, world, lengths, **options)
            assert found[0].item() == pytest.approx(loss.item(), rel=1e-6)
            for name, grad in grads.items():
                assert float((found[1][name] - grad).abs().max()) <= 1e-5, (again, name)


@pytest.mark.slow
def test_shared_layers_can_be_checkpointed_and_compiled():
    run_ranks(2, check)


def check_order(world):
    """The documented order: layers are shared, then activations checkpointed, then weights sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from maskwright.parallel.tensor_parallel import share_layers

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    ids, found = torch.arange(sum(LENGTHS)) % 41, []
    for again in ("none", "full"):
        model = MaskedLM(CONFIG)
        initialize(model, 1, 0.1)
        share_layers(model, mesh["tensor"], world.share_layers(2))
        accelerate_model(model, activation_checkpointing=again)
        for part in (*model.encoder.layers, model):
            fully_shard(part, mesh=mesh["shard"])
            part.set_force_sum_reduction_for_comms(True)
        keys = DropoutKeys(np.arange(3, dtype=np.int64) + world.rank // 2)
        loss, _ = model(ids, Layout(LENGTHS), torch.arange(0, 25, 4), ids[::4].clone(), keys)
        loss.backward()
        grads = {name: value.grad.to_local() for name, value in model.named_parameters()}
        found.append((loss.item(), grads))
    (loss, grads), (other, again) = found
    assert loss == other
    assert all(torch.equal(again[name], grad) for name, grad in grads.items())


@pytest.mark.slow
def test_checkpoints_stand_between_sharing_and_sharding():
    run_ranks(4, check_order)
