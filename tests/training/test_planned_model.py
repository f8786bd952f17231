"""What a run hands to its engine: a model with weights, or one without memory and the same weights."""

import pytest
import torch

import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import CheckpointError
from maskwright.model.hf import load_encoder_config
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.pretrain_setting import build_model, open_setting, plan_model


def setting_of(data_folder, engine="fsdp2", **changes):
    values = {**tiny_world.PRETRAIN, "data": str(data_folder), "parallel": {"engine": engine}, **changes}
    if "init_from" in changes and not changes.get("grow"):
        del values["model"]
    return open_setting(parse_config(PretrainConfig, values, "test"))


def check_same(setting):
    planned, whole = plan_model(setting), build_model(setting).state_dict()
    assert all(weight.is_meta for weight in planned.model.parameters())
    found = {name: torch.full_like(value, float("nan")) for name, value in whole.items()}
    for name, first_row, values in planned.first_weights():
        found[name][first_row : first_row + len(values)] = values
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_drawn(data_folder):
    check_same(setting_of(data_folder))


def test_loaded(data_folder, pretrained):
    check_same(setting_of(data_folder, init_from=str(pretrained / "export")))


@pytest.mark.parametrize("engine", ["single", "ddp", "deepspeed", "auto"])
def test_other_engines_take_a_whole_model(data_folder, engine):
    planned = plan_model(setting_of(data_folder, engine))
    assert planned.first_weights is None
    assert not any(weight.is_meta for weight in planned.model.parameters())


def test_a_grown_model_is_whole(data_folder, pretrained):
    larger = {**tiny_world.PRETRAIN["model"], "num_hidden_layers": 4}
    setting = setting_of(data_folder, init_from=str(pretrained / "export"), grow=True, model=larger)
    planned = plan_model(setting)
    assert planned.first_weights is None
    assert not any(weight.is_meta for weight in planned.model.parameters())


def test_weights_are_refused_before_they_are_asked_for(data_folder, pretrained, tmp_path):
    export = pretrained / "export"
    setting = setting_of(data_folder, init_from=str(export))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((export / name).read_bytes()[: None if name == "config.json" else 99])
    assert load_encoder_config(tmp_path)[0] == load_encoder_config(export)[0]
    config = setting.config.model_copy(update={"init_from": str(tmp_path)})
    broken = type(setting)(**{**vars(setting), "config": config})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        plan_model(broken)
