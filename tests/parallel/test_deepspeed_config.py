"""What a user's `ds_config.json` may say, and what is told of all that contradicts the recipe."""

import json
import re

import pytest

from maskwright.core.errors import ConfigError
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.deepspeed_config import StepPlan, make_deepspeed_config, make_loss_scaler
from maskwright.parallel.loss_scaling import LossScaler

PLAN = StepPlan("fp32", 1.0, 2, sequences=64, micro_sequences=8)


@pytest.fixture
def make(tmp_path):
    def made(given, plan=PLAN, **options):
        path = tmp_path / "ds_config.json"
        path.write_text(given if isinstance(given, str) else json.dumps(given))
        parallel = ParallelConfig(engine="deepspeed", deepspeed_config=str(path), **options)
        return make_deepspeed_config(parallel, plan)

    return made


def test_without_a_file_the_stage_is_that_of_the_recipe():
    found = make_deepspeed_config(ParallelConfig(engine="deepspeed", zero_stage=1), PLAN)
    assert found["zero_optimization"] == {"stage": 1}
    assert found["gradient_accumulation_steps"] == found["train_micro_batch_size_per_gpu"] == 1
    assert "gradient_clipping" not in found


def test_offloading(make):
    parallel = ParallelConfig(engine="deepspeed", zero_stage=3, cpu_offload=True)
    zero = make_deepspeed_config(parallel, PLAN)["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == {"device": "cpu"}
    own = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}}}
    zero = make(own, cpu_offload=True)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert "offload_param" not in zero


def test_what_agrees_is_taken_and_auto_is_filled_in(make):
    found = make(
        {
            "train_batch_size": 64,
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": 4,
            "gradient_clipping": 1.0,
            "fp16": {"enabled": "auto"},
            "bf16": {"enabled": False},
            "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
            "scheduler": "auto",
            "tensor_parallel": {"enabled": False},
            "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True},
            "wall_clock_breakdown": False,
        }
    )
    assert found["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert found["wall_clock_breakdown"] is False
    assert not found.keys() & {"optimizer", "scheduler", "fp16", "bf16", "train_batch_size"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_that_of_the_recipe(make, precision):
    found = make({"zero_optimization": {"stage": 2}}, StepPlan(precision, 0.0, 2))
    assert found[precision]["enabled"] is True
    assert found["data_types"] == {"grad_accum_dtype": "fp32"}
    assert found.get("fp16", {"loss_scale": 1})["loss_scale"] == 1


def test_every_contradiction_is_named(make):
    given = {
        "train_batch_size": 32,
        "train_micro_batch_size_per_gpu": 16,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "optimizer": {"type": "Adam", "params": {"lr": 1e-3}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 9}},
        "curriculum_learning": {"enabled": True},
    }
    with pytest.raises(ConfigError, match="contradicts the recipe") as caught:
        make(given)
    first, *lines = str(caught.value).splitlines()
    assert "ds_config.json contradicts the recipe, which decides what a step is" in first
    assert [line.split()[0].removesuffix(".enabled") for line in lines] == list(given)
    assert "train_batch_size is 32, the recipe says 64 (batch.sequences)" in lines[0]
    assert "gradient_accumulation_steps is 2, the recipe says 4" in lines[2]
    assert "bf16.enabled is True, the recipe says False (precision=fp32)" in lines[4]
    assert "the recipe has its own (optimizer); remove it" in lines[5]
    assert "the recipe has nothing like it; remove it" in lines[7]


@pytest.mark.parametrize(
    ("precision", "given", "message"),
    [
        (
            "fp32",
            {"zero_optimization": {"stage": 2, "round_robin_gradients": True}},
            "zero_optimization.round_robin_gradients is true, with which DeepSpeed mistakes one weight",
        ),
        (
            "bf16",
            {"zero_optimization": {"stage": 1}, "data_types": {"grad_accum_dtype": "fp32"}},
            "data_types.grad_accum_dtype is 'fp32', which is here for stages 2 and 3; set",
        ),
        (
            "bf16",
            {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}},
            "bf16.bf16_master_weights_and_grads is true, the recipe keeps fp32 weights; remove it",
        ),
        ("fp16", {"fp16": {"loss_scale": 128}}, "fp16.loss_scale is 128, the recipe has a dynamic one; set"),
        ("fp32", {"prescale_gradients": True}, "prescale_gradients is true, the recipe has nothing like it"),
    ],
)
def test_what_the_engine_cannot_follow_is_named(make, precision, given, message):
    with pytest.raises(ConfigError, match="contradicts the recipe") as caught:
        make(given, StepPlan(precision, 1.0, 2))
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 1
    assert lines[0].strip().startswith(message)


def test_the_usual_scaling_of_losses_is_taken(make):
    scaling = {"enabled": True, "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16}
    given = {"fp16": scaling, "zero_optimization": {"stage": 2, "round_robin_gradients": False}}
    assert make(given, StepPlan("fp16", 1.0, 2))["fp16"] == {"enabled": True, "loss_scale": 1}


def test_a_batch_that_cannot_be_compared_is_refused(make):
    with pytest.raises(ConfigError, match="train_batch_size is 32, the recipe has batch"):
        make({"train_batch_size": 32}, StepPlan("fp32", 1.0, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "is a list, expected an object with DeepSpeed's settings"),
        ({"fp16": 1}, "fp16 is 1, expected an object"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage is 4, expected 0, 1, 2 or 3"),
    ],
)
def test_a_file_of_another_kind_is_refused(make, given, message):
    with pytest.raises(ConfigError, match=message):
        make(given)


def test_a_missing_file_is_named(tmp_path):
    parallel = ParallelConfig(engine="deepspeed", deepspeed_config=str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        make_deepspeed_config(parallel, PLAN)


def test_stage_0_is_for_fp32():
    parallel = ParallelConfig(engine="deepspeed", zero_stage=0)
    with pytest.raises(ConfigError, match="ZeRO stage 0 is here for fp32 only, but the precision is bf16"):
        make_deepspeed_config(parallel, StepPlan("bf16", 1.0, 2))


@pytest.fixture
def scale(tmp_path):
    def made(given, precision="fp16"):
        path = tmp_path / "ds_config.json"
        path.write_text(json.dumps(given))
        parallel = ParallelConfig(engine="deepspeed", deepspeed_config=str(path))
        scaler, ignored = make_loss_scaler(parallel, precision)
        return scaler, [said.removeprefix(f"{path}: ") for said in ignored]

    return made


def test_the_scaling_of_losses_is_that_of_the_file(scale):
    given = {
        "enabled": True,
        "loss_scale": 0,
        "initial_scale_power": 10,
        "loss_scale_window": 500,
        "min_loss_scale": 4,
        "hysteresis": 1,
        "auto_cast": False,
    }
    scaler, ignored = scale({"fp16": given})
    assert (scaler.scale, scaler.growth_interval, scaler.minimum, scaler.maximum) == (1024, 500, 4, 2**24)
    assert ignored == []


def test_without_values_the_scaling_of_losses_is_ours(scale):
    ours = LossScaler()
    for given in ({}, {"fp16": {"loss_scale_window": "auto", "initial_scale_power": "auto"}}):
        scaler, ignored = scale(given)
        assert vars(scaler) == vars(ours)
        assert ignored == []
    assert vars(make_loss_scaler(ParallelConfig(engine="deepspeed"), "fp16")[0]) == vars(ours)
    assert scale({"fp16": {"loss_scale_window": 5}}, "fp32") == (None, [])


def test_what_is_not_followed_is_named(scale):
    given = {
        "initial_scale_power": 32,
        "hysteresis": 2,
        "consecutive_hysteresis": True,
        "auto_cast": True,
    }
    scaler, ignored = scale({"fp16": given})
    assert scaler.scale == 2**24
    assert ignored == [
        "fp16.initial_scale_power 32 is too large; it begins with 24",
        "fp16.hysteresis 2 is ignored: the first overflow lowers the loss scale",
        "fp16.consecutive_hysteresis true is ignored: the first overflow lowers the loss scale",
        "fp16.auto_cast true is ignored: the engine has its own way",
    ]
    found = {"bfloat16": {"immediate_grad_update": True}, "bf16": {"check_grad_overflow": False}}
    assert scale(found, "bf16") == (
        None,
        [
            "bf16.immediate_grad_update true is ignored: the engine has its own way",
            "bf16.check_grad_overflow false is ignored: "
            "a step whose gradient is not finite is always skipped",
        ],
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"initial_scale_power": -1},
            "fp16.initial_scale_power is -1, expected an integer from 0; correct it",
        ),
        ({"loss_scale_window": 0}, "fp16.loss_scale_window is 0, expected an integer from 1; correct it"),
        ({"loss_scale_window": True}, "fp16.loss_scale_window is True, expected an integer from 1"),
        ({"min_loss_scale": 0.5}, "fp16.min_loss_scale is 0.5, expected an integer from 1; correct it"),
        (
            {"min_loss_scale": 3},
            "fp16.min_loss_scale is 3, expected a power of two up to the first scale, 65536",
        ),
        (
            {"min_loss_scale": 8, "initial_scale_power": 2},
            "a power of two up to the first scale, 4; correct it",
        ),
    ],
)
def test_a_scaling_of_losses_that_makes_no_sense_is_refused(scale, given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        scale({"fp16": given})
