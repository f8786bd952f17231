"""The doctor's advice, and looks into folders that are not quite whole."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import maskwright
from maskwright.cli.main import app
from maskwright.core.errors import CheckpointError, ShardError, TokenizerError
from maskwright.jobs import doctor
from maskwright.training.watching.flight import FlightRecorder, flight_path, put_aside


def advice(monkeypatch, free=1 << 40, missing=(), **machine):
    values = {"cpu": "x", "cores": 8, "memory_bytes": 1 << 36, "flags": {}, "gpus": [], **machine}
    honest = doctor.find_spec
    monkeypatch.setattr(doctor, "describe_machine", lambda: values)
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda folder: free)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in missing else honest(name))
    return {line["what"]: (line["level"], line["remedy"]) for line in maskwright.doctor()["advice"]}


def test_a_machine_with_everything(monkeypatch):
    found = advice(
        monkeypatch,
        gpus=[{"name": "H200", "memory_bytes": 1}],
        flags={"avx512_bf16": True, "avx512_vnni": True},
    )
    assert {level for level, _ in found.values()} == {"ok"}
    assert len(found) == 3


def test_a_machine_with_nothing(monkeypatch):
    found = advice(monkeypatch, free=10**9, missing=("torch", "gigatoken"), cores=1, memory_bytes=2 * 10**9)
    assert found["no CUDA device"][0] == "slow"
    assert found["no native bf16 on this processor"][0] == "slow"
    assert found["no VNNI"] == ("slow", "int8 models may lose accuracy here; serve fp32 or bf16")
    assert found["one core"][0] == "slow"
    assert found["1.0 GB of disk left"] == ("slow", "free some space or choose another --output")
    assert found["2.0 GB of memory"][0] == "slow"
    assert found["torch, needed to pretrain and fine-tune"] == ("missing", "pip install 'maskwright[train]'")
    assert found["gigatoken, needed to encode text fast"] == ("missing", "pip install 'maskwright'")


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert advice(monkeypatch)["a GPU is here but torch cannot use it"] == (
        "slow",
        "install a CUDA build of torch",
    )


@pytest.fixture
def copy(data_folder, tmp_path):
    return shutil.copytree(data_folder, tmp_path / "data")


def test_every_document_comes_back(data_folder):
    found = maskwright.inspect(data_folder, document=0, split="validation")
    assert found["document"]["num_tokens"] > 5
    assert found["document"]["text"][0].isupper()


def test_damage_is_found_when_asked_for(copy):
    path = copy / "train" / "shard-00000.documents"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    assert maskwright.inspect(copy)["kind"] == "data"
    with pytest.raises(ShardError, match=r"shard-00000\.documents: is damaged"):
        maskwright.inspect(copy, verify=True)


def test_data_without_its_tokenizer(copy):
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(TokenizerError, match=r"tokenizer: has no tokenizer\.json"):
        maskwright.inspect(copy, document=0)


def test_a_split_that_is_not_there(data_folder):
    with pytest.raises(ShardError, match="has no split 'test'; it has train, validation"):
        maskwright.inspect(data_folder, document=0, split="test")


def test_a_model_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="holds a list, expected the config of a model"):
        maskwright.inspect(tmp_path)


def test_the_flight_of_a_run_for_people_and_for_programs(tmp_path):
    for reason, how in ((None, ""), ("ValueError: no", "error")):
        header = {"rank": 1, "processes": 2, "host": "here", "started": "then"}
        recorder = FlightRecorder(flight_path(tmp_path, 1), header, lambda: 86400.0)
        if reason:
            recorder.begin(3, "computing")
            recorder.finish(reason, 3, "computing", how)
        recorder.close()
        put_aside(tmp_path)
    for rank in (0, 2):
        header = {"rank": rank, "processes": 3, "host": "here", "versions": {"torch": f"2.{rank}"}}
        recorder = FlightRecorder(flight_path(tmp_path, rank), header, lambda: 86400.0)
        recorder.begin(7, "computing")
        recorder.finish("rank 1 is gone", 7, "computing", "lost")
        recorder.close()
    (tmp_path / "flight" / "rank-00001.jsonl").write_text("torn")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--flight"])
    assert result.exit_code == 0
    end = (
        "last step 7 (computing) at 1970-01-02 00:00:00 UTC; ended at 1970-01-02 00:00:00 UTC: rank 1 is gone"
    )
    assert result.stdout.splitlines() == [
        f"rank 0 on here: {end}",
        f"rank 2 on here: {end}",
        "rank 1: left a recorder that cannot be read",
        "before, started then: step 3; rank 1: ValueError: no",
        "before, started then: no step; nobody said how it ended",
        "processes           3",
        "stopped first       not known",
        "versions            torch 2.0",
        "versions of rank 2  torch 2.2",
    ]
    result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--flight", "--json"])
    found = json.loads(result.stdout)
    assert (found["kind"], found["damaged"], len(found["ranks"])) == ("flight", [1], 2)
    assert found["earlier"][0] == {
        "started": "then",
        "processes": 2,
        "step": 3,
        "stopped_first": 1,
        "how": "error",
        "reason": "ValueError: no",
    }
