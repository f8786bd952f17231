"""Volumes follow the papers, times follow the stated rates, and the best mesh is possible and fastest."""

import pytest

from maskwright.core.errors import ConfigError
from maskwright.planner import (
    HARDWARE,
    Batch,
    Hardware,
    Mesh,
    Shape,
    best_mesh,
    predict,
    rank_memory,
    scaling_table,
    step_traffic,
)

BASE = Shape(768, 12, 12, 3_072)
LARGE = Shape(1_024, 24, 16, 4_096)
XXL = Shape(4_096, 48, 32, 16_384, vocab_size=250_002)
BATCH = Batch(1_024, 16, 512)


def sent(shape, mesh, batch):
    found = {}
    for one in step_traffic(shape, mesh, batch):
        key = (one.purpose, one.collective, one.phase)
        found[key] = found.get(key, 0) + one.sent_bytes
    return found


def test_one_process_sends_nothing():
    assert step_traffic(BASE, Mesh("single"), BATCH) == []
    assert step_traffic(BASE, Mesh("fsdp2"), BATCH) == []


def test_copies_send_gradients_once_however_many_micro_batches():
    for micro in (1, 64):
        found = sent(BASE, Mesh("ddp", 8), Batch(1_024, micro, 512))
        assert found == {("gradients", "all-reduce", "last backward"): 2 * 4 * BASE.num_parameters * 7 / 8}


def test_shards_send_three_halves_of_copies_for_each_micro_batch():
    mesh, batch = Mesh("fsdp2", 8), Batch(256, 16, 512, reduce_precision="bf16")
    found = sent(BASE, mesh, batch)
    once = 2 * 2 * BASE.num_parameters * 7 / 8  # two micro-batches, two bytes
    layers = 12 * BASE.layer_parameters() / BASE.num_parameters
    assert found == pytest.approx(
        {
            ("weights", "all-gather", "forward"): once,
            ("weights", "all-gather", "backward"): once * layers,
            ("gradients", "reduce-scatter", "backward"): once,
        }
    )
    without = sent(BASE, Mesh("fsdp2", 8, reshard_after_forward=False), batch)
    assert ("weights", "all-gather", "backward") not in without


def test_copies_of_shards_send_a_shard_to_each_other():
    found = sent(BASE, Mesh("fsdp2", 8, replicas=2), Batch(128, 16, 512))
    gradients = 4 * BASE.num_parameters
    assert found["gradients", "reduce-scatter", "backward"] == gradients * 3 / 4
    assert found["gradients", "all-reduce", "backward"] == 2 * gradients / 4 / 2


def test_ranks_that_share_layers_send_hidden_values():
    found = sent(BASE, Mesh("fsdp2", 1, 4), Batch(16, 16, 512))
    hidden = 16 * 512 * 768 * 2 * 3 / 4
    assert found["hidden values", "all-gather", "blocking"] == 50 * hidden
    assert found["hidden values", "reduce-scatter", "blocking"] == 49 * hidden
    again = sent(BASE, Mesh("fsdp2", 1, 4), Batch(16, 16, 512, checkpointing="full"))
    assert again["hidden values", "all-gather", "blocking"] == 74 * hidden


@pytest.mark.parametrize(("stage", "copies"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_zero_sends_what_its_paper_says(stage, copies):
    found = sent(BASE, Mesh("deepspeed", 8, zero_stage=stage), Batch(128, 16, 512))
    assert sum(found.values()) == copies * 2 * BASE.num_parameters * 7 / 8


def test_a_collective_takes_bytes_over_rate_and_hops():
    machine = Hardware(1e12, 0.5, 1e9, 1e9, 4, 100.0, 10.0, 0.5, 1.0, 10.0, 3.0)
    seconds = machine.collective_seconds
    assert seconds("all-gather", 1_000, 1, 1, 5) == 0
    assert seconds("all-gather", 1_000, 4, 1, 2) == 1_000 / 50 + 2 * (3 + 3)
    # Two nodes: four adapters each, six hops within and one between.
    assert seconds("all-gather", 1_000, 8, 1, 1) == 1_000 / 20 + 3 + 6 + 10
    # A rank of each of four nodes: one adapter each, even if the link were slower.
    assert seconds("reduce-scatter", 1_000, 4, 4, 1) == 1_000 / 5 + 3 + 30
    # A tree of four nodes is two deep.
    assert seconds("all-reduce", 0, 16, 1, 1) == 3 + 2 * (3 + 2 * 10)
    # A ring where it has fewer hops.
    assert seconds("all-reduce", 0, 2, 1, 1) == 3 + 2 * 1


def test_arithmetic_alone_is_efficient():
    found = predict(BASE, Mesh("single"), HARDWARE["h100"], BATCH)
    assert found.waiting_seconds == 0
    assert found.seconds == pytest.approx(found.compute_seconds + found.optimizer_seconds)
    assert found.efficiency == pytest.approx(found.compute_seconds / found.seconds)
    assert found.tokens_per_second == pytest.approx(1_024 * 512 / found.seconds)
    assert found.sent_bytes == {}
    slow = predict(BASE, Mesh("single"), HARDWARE["h100"], Batch(1_024, 16, 512, precision="fp32"))
    assert slow.compute_seconds == pytest.approx(2 * found.compute_seconds)


def test_uneven_shares_and_computing_again_cost_efficiency():
    machine = HARDWARE["h100"]
    even = predict(BASE, Mesh("ddp", 8), machine, Batch(64, 8, 512))
    uneven = predict(BASE, Mesh("ddp", 8), machine, Batch(65, 8, 512))
    assert uneven.compute_seconds == pytest.approx(even.compute_seconds * 9 / 8)
    assert uneven.efficiency < even.efficiency
    again = predict(BASE, Mesh("ddp", 8), machine, Batch(64, 8, 512, checkpointing="full"))
    assert 1.28 < again.compute_seconds / even.compute_seconds < 4 / 3


def test_a_slower_network_never_helps():
    fast = HARDWARE["h100"]
    slow = Hardware(**vars(fast) | {"network_bandwidth": fast.network_bandwidth / 50})
    for mesh in (Mesh("ddp", 64), Mesh("fsdp2", 64), Mesh("fsdp2", 32, 2), Mesh("deepspeed", 64)):
        assert predict(LARGE, mesh, slow, BATCH).seconds > predict(LARGE, mesh, fast, BATCH).seconds


def test_copies_of_shards_help_where_the_network_is_slow():
    machine = Hardware(**vars(HARDWARE["h100"]) | {"network_bandwidth": 1.5e9})
    whole = predict(XXL, Mesh("fsdp2", 64), machine, BATCH)
    copies = predict(XXL, Mesh("fsdp2", 64, replicas=8), machine, BATCH)
    assert copies.waiting_seconds < whole.waiting_seconds


def test_the_best_mesh_is_the_fastest_that_fits():
    choice = best_mesh(XXL, 16, HARDWARE["h100"], BATCH)
    seconds = [plan.seconds for plan in choice.plans]
    assert seconds == sorted(seconds)
    assert choice.best is choice.plans[0]
    for plan in choice.plans:
        assert plan.memory.total <= 0.92 * 80e9
        assert plan.mesh.size == 16
        assert plan.memory == rank_memory(XXL, plan.mesh, plan.batch)
    reasons = {str(mesh): reason for mesh, reason in choice.refused}
    assert "ddp x 16" in reasons
    assert reasons["ddp x 16"].startswith("needs 2")
    assert reasons["ddp x 16"].endswith("GB a device, and 73.6 GB are there")


def test_why_meshes_are_out():
    few = best_mesh(BASE, 16, HARDWARE["h100"], Batch(8, 8, 512))
    reasons = {str(mesh): reason for mesh, reason in few.refused}
    assert reasons["ddp x 16"] == "8 sequences are too few for 16 shares"
    assert reasons["fsdp2 x 2, tensor 8"] == "num_attention_heads 12 is no multiple of tensor 8"
    assert all(plan.mesh.tensor in (2, 4) for plan in few.plans)
    one = best_mesh(XXL, 1, HARDWARE["h100"], BATCH)
    with pytest.raises(ConfigError, match=r"no mesh is possible: single x 1: needs .* take more devices"):
        _ = one.best
    with pytest.raises(ConfigError, match="num_devices is 0, expected at least 1"):
        best_mesh(BASE, 0, HARDWARE["h100"], BATCH)
    with pytest.raises(ConfigError, match="intermediate_size 3000 is no multiple of tensor 1024"):
        predict(Shape(8_192, 1, 1_024, 3_000), Mesh("fsdp2", 1, 1_024), HARDWARE["h100"], BATCH)


def test_from_one_device_to_a_thousand():
    rows = scaling_table(LARGE, HARDWARE["h200"], Batch(8_192, 32, 512))
    assert [count for count, _ in rows] == [1 << number for number in range(11)]
    speeds = [plan.tokens_per_second for _, plan in rows]
    assert speeds == sorted(speeds)
    efficiencies = [plan.efficiency for _, plan in rows]
    assert efficiencies[0] > 0.99 > 0.95 > efficiencies[-1] > 0.5
    weak = scaling_table(LARGE, HARDWARE["h200"], BATCH, (8, 1_024), sequences_per_device=64)
    assert [plan.batch.sequences for _, plan in weak] == [512, 65_536]
    assert weak[1][1].efficiency > efficiencies[-1]
    assert scaling_table(XXL, HARDWARE["h100"], BATCH, (1,))[0][1].startswith("needs")


def test_settings_that_make_no_sense():
    for values, message in (
        ({"sequences": 0}, "sequences is 0, expected at least 1"),
        ({"mlm_probability": 15}, "mlm_probability is 15, expected 0 to 1"),
        ({"precision": "fp8"}, 'precision is "fp8", expected fp32, bf16, fp16'),
        ({"reduce_precision": "fp8"}, 'reduce_precision is "fp8", expected fp32 or bf16'),
        ({"checkpointing": "half"}, 'checkpointing is "half", expected none, selective or full'),
    ):
        with pytest.raises(ConfigError, match=message):
            Batch(**vars(BATCH) | values)
    for values, message in (
        ({"engine": "horovod"}, 'engine is "horovod", expected one of single, ddp, fsdp2, deepspeed'),
        ({"engine": "ddp", "data": 0}, "the mesh ddp x 0 has no rank; every number must be at least 1"),
        ({"engine": "ddp", "tensor": 2}, "tensor and replicas are for fsdp2, but engine is ddp"),
        ({"engine": "single", "data": 2}, "engine is single, but data is 2; choose ddp or fsdp2"),
        ({"engine": "fsdp2", "data": 4, "replicas": 3}, "replicas is 3, which does not divide data 4"),
        ({"engine": "deepspeed", "zero_stage": 4}, "zero_stage is 4, expected 0 to 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            Mesh(**values)
    with pytest.raises(ConfigError, match="hidden_size 770 is not a multiple of num_attention_heads 12"):
        Shape(770, 12, 12, 3_072)


def test_plans_have_names():
    assert str(Mesh("fsdp2", 4, 2, 2, reshard_after_forward=False)) == (
        "fsdp2 x 4, tensor 2, replicas 2, no resharding"
    )
    assert str(Mesh("deepspeed", 4, zero_stage=3)) == "deepspeed x 4, zero_stage 3"
