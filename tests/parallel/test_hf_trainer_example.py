"""The example with the Trainer of Hugging Face and DeepSpeed, run as its text says."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OPTIONS = {
    "--steps": 40,
    "--sequence-length": 32,
    "--micro-batch": 4,
    "--accumulation": 2,
    "--layers": 2,
    "--hidden-size": 64,
    "--lr": 3e-3,
}


def test_the_config_is_zero_2_and_leaves_the_rest_to_the_trainer():
    config = json.loads((EXAMPLES / "ds_config.json").read_text("utf-8"))
    assert config["zero_optimization"]["stage"] == 2
    assert config["fp16"]["enabled"] == config["bf16"]["enabled"] == "auto"
    assert config["gradient_accumulation_steps"] == "auto"


@pytest.mark.distributed
def test_two_processes_train_with_zero_2_and_the_loss_falls(data_folder, tmp_path):
    # Not imported here, where it would change torch for the tests that follow.
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    if shutil.which("c++") is None or shutil.which("ninja") is None:
        pytest.skip("DeepSpeed builds its CPU communication with a C++ compiler and ninja, which are missing")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [str(part) for pair in OPTIONS.items() for part in pair]
    done = subprocess.run(
        [*torchrun, EXAMPLES / "hf_trainer_deepspeed.py", data_folder, tmp_path / "out", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text("utf-8"))
    losses = [record["loss"] for record in state["log_history"] if "loss" in record]
    assert state["global_step"] == 40
    # Chance is the logarithm of 400 entries, which is 6: a wrong factor in the loss would show here.
    assert losses[0] == pytest.approx(6.0, abs=0.3)
    assert losses[-1] < losses[0] - 0.5
    evaluated = [record["eval_loss"] for record in state["log_history"] if "eval_loss" in record]
    assert evaluated[-1] == pytest.approx(losses[-1], abs=0.7)

    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "model")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out" / "model")) == model.config.vocab_size
