"""A run that is stopped on some processes goes on with others, and with another engine, as one run."""

import json
import os
import signal

import pytest
import torch

import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import Interrupted, MaskwrightError, OutOfReachError
from maskwright.objectives.mlm import MaskedLMStream
from maskwright.parallel.world import SOLO
from maskwright.report import write_report
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.pretraining import run_pretraining
from ranks import run_ranks

pytestmark = pytest.mark.distributed

STEPS, STOP = 24, 9


def settings(data, engine, **changes):
    values = {
        **tiny_world.PRETRAIN,
        "model": {**tiny_world.PRETRAIN["model"], "num_attention_heads": 4},
        "data": str(data),
        "steps": STEPS,
        "batch": {"sequences": 10, "micro_sequences": 2},
        "optimizer": {"lr": 1e-3},
        "log_every_steps": 1,
        "checkpoint": {"every_steps": 100},
        "parallel": {"engine": engine},
        **changes,
    }
    return parse_config(PretrainConfig, values, "test")


def go(world, folder, data, engine, stop_rank=None, **changes):
    """Run until the end, or until one rank is asked to stop; how it ended."""
    step = MaskedLMStream.next_step

    def stopping(self, share_done=0.0):
        if world.rank == stop_rank and self.consumed == 10 * (STOP - 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, share_done)

    MaskedLMStream.next_step = stopping
    try:
        run_pretraining(settings(data, engine, **changes), folder)
        return "finished"
    except Interrupted as error:
        return str(error)
    finally:
        MaskedLMStream.next_step = step


def steps_and_losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    events = [line["message"] for line in lines if line["kind"] == "event"]
    return [line["step"] for line in trained], [line["loss"] for line in trained], events


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "export" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert go(SOLO, folder, data_folder, "single") == "finished"
    return folder


def check(folder, alone):
    steps, losses, events = steps_and_losses(folder)
    expected = steps_and_losses(alone)[1]
    assert steps == list(range(1, STEPS + 1))
    assert losses == pytest.approx(expected, rel=1e-5)
    for name, weight in weights(alone).items():
        assert torch.allclose(weights(folder)[name], weight, rtol=1e-3, atol=1e-5), name
    return events


def test_from_ddp_to_fsdp2_to_one_process(data_folder, alone, tmp_path):
    told = run_ranks(2, go, tmp_path, data_folder, "ddp", 1)
    assert told == [f"stopped by SIGTERM at step {STOP} of {STEPS}; a checkpoint was saved"] * 2
    assert steps_and_losses(tmp_path)[0] == list(range(1, STOP + 1))
    assert run_ranks(2, stop_again, tmp_path, data_folder) == ["stopped"] * 2
    assert go(SOLO, tmp_path, data_folder, "single") == "finished"
    events = check(tmp_path, alone)
    assert f"resumed from the checkpoint of step {STOP} on 2 processes, fsdp2" in events


def stop_again(world, folder, data):
    """Four more steps on shards."""
    global STOP
    before, STOP = STOP, STOP + 4
    try:
        told = go(world, folder, data, "fsdp2", 0)
        return "stopped" if f"at step {before + 4}" in told else told
    finally:
        STOP = before


def lose_data(world, folder, data, engine):
    """Rank 1 cannot read what it needs at one step; how each ended, and with which exit code."""
    step = MaskedLMStream.next_step

    def failing(self, share_done=0.0):
        if world.rank == 1 and self.consumed == 10 * STOP:
            raise OutOfReachError("far://data: cannot be read")
        return step(self, share_done)

    MaskedLMStream.next_step = failing
    try:
        run_pretraining(settings(data, engine), folder)
    except MaskwrightError as error:
        return str(error), error.exit_code
    finally:
        MaskedLMStream.next_step = step


def test_data_that_one_rank_cannot_read_costs_nothing(data_folder, alone, tmp_path):
    told = run_ranks(2, lose_data, tmp_path, data_folder, "fsdp2")
    assert told == [
        (f"rank 1 could not read its data of step {STOP + 1}; start the run again", 1),
        ("far://data: cannot be read", 1),
    ]
    assert go(SOLO, tmp_path, data_folder, "single") == "finished"
    events = check(tmp_path, alone)
    assert f"resumed from the checkpoint of step {STOP}" in events


@pytest.mark.slow
def test_from_two_to_four_processes(data_folder, alone, tmp_path):
    run_ranks(2, go, tmp_path, data_folder, "ddp", 0)
    found = run_ranks(4, go, tmp_path, data_folder, "fsdp2", patience=240.0)
    assert found == ["finished"] * 4
    events = check(tmp_path, alone)
    assert f"resumed from the checkpoint of step {STOP} on 4 processes, fsdp2" in events
    page = tmp_path / "report.html"
    write_report(page, "moved", pretrain=tmp_path)
    assert "4 processes, fsdp2" in page.read_text()


def resume_wrongly(world, folder, data, **changes):
    from maskwright.core.errors import CheckpointError

    try:
        return go(world, folder, data, "ddp", **changes)
    except CheckpointError as error:
        return str(error)


def test_another_seed_or_batch_is_refused(data_folder, tmp_path):
    """The checkpoint itself knows, whatever the folder's config says."""
    run_ranks(2, go, tmp_path, data_folder, "ddp", 1)
    first = resume_wrongly(SOLO, tmp_path, data_folder, seed=5, parallel={})
    assert first.startswith("the checkpoint was made with seed 0, now it is 5; resume with")
    second = resume_wrongly(
        SOLO, tmp_path, data_folder, batch={"sequences": 12, "micro_sequences": 2}, parallel={}
    )
    assert "made with batch {'sequences': 10" in second
    forced = run_pretraining(settings(data_folder, "auto", seed=5), tmp_path, force=True)
    assert forced["steps"] == STEPS
