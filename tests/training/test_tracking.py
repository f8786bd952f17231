"""Trackers get the numbers in the form their libraries take, and can neither end nor stall a run."""

import json
import logging
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, MissingDependencyError
from maskwright.training.hooks import TrackingConfig, memory_fields, padding_share, tracking_hooks
from maskwright.training.hooks.trackers import flat_config
from maskwright.training.hooks.tracking import BackgroundTracker

CONFIG = {"steps": 3, "model": {"size": "tiny", "layers": None}, "tracking": {}}
RECORDS = [
    {"kind": "event", "step": 0, "message": "resumed"},
    {"kind": "train", "step": 2, "loss": 2.5, "flag": True, "lr": float("nan")},
    {"kind": "evaluation", "step": 3, "loss": 2.0},
]


class Calls(list):
    """Remembers calls by name; `calls.take("log")` is a method that does."""

    def take(self, name, result=None):
        def method(*arguments, **options):
            self.append((name, arguments, options))
            return result

        return method

    def of(self, name):
        return [(arguments, options) for found, arguments, options in self if found == name]


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def wandb(calls, monkeypatch):
    run = SimpleNamespace(
        define_metric=calls.take("define_metric"),
        log=calls.take("log"),
        summary=SimpleNamespace(update=calls.take("summary")),
        finish=calls.take("finish"),
    )
    module = ModuleType("wandb")
    module.init = calls.take("init", run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def trackio(calls, monkeypatch):
    module = ModuleType("trackio")
    module.init = calls.take("init", SimpleNamespace(log=calls.take("log"), finish=calls.take("finish")))
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


@pytest.fixture
def mlflow(calls, monkeypatch):
    client = SimpleNamespace(
        get_experiment_by_name=calls.take("get_experiment_by_name"),
        create_experiment=calls.take("create_experiment", "7"),
        create_run=calls.take("create_run", SimpleNamespace(info=SimpleNamespace(run_id="r1"))),
        update_run=calls.take("update_run"),
        log_batch=calls.take("log_batch"),
        log_dict=calls.take("log_dict"),
        set_terminated=calls.take("set_terminated"),
    )
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient, module.client = lambda: client, client
    entities.Metric = lambda key, value, timestamp, step: ("metric", key, value, step)
    entities.Param = lambda key, value: ("param", key, value)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return module


def follow(folder, *names, records=RECORDS, total_steps=3, **options):
    config = TrackingConfig(trackers=names, **options)
    hooks = tracking_hooks(config, folder, CONFIG, total_steps)
    for record in records:
        for hook in hooks:
            hook.record(record)
    for hook in hooks:
        hook.close()
    return hooks


class TestWandb:
    def test_what_it_is_told(self, wandb, calls, tmp_path):
        follow(tmp_path, "wandb", project="roberta", name="first")
        ((_, options),) = calls.of("init")
        assert options == {
            "project": "roberta",
            "name": "first",
            "id": options["id"],
            "resume": "allow",
            "dir": str(tmp_path),
            "config": CONFIG,
        }
        assert (("train/*",), {"step_metric": "step"}) in calls.of("define_metric")
        first, second = (arguments[0] for arguments, _ in calls.of("log"))
        assert (first["step"], first["train/loss"]) == (2, 2.5)
        assert "train/flag" not in first
        assert second == {"step": 3, "validation/loss": 2.0}
        (((summary,), _),) = calls.of("summary")
        assert (summary["train_loss"], summary["validation_loss"], summary["step"]) == (2.5, 2.0, 3)
        assert calls[-1] == ("finish", (), {"exit_code": 0})

    def test_a_run_that_does_not_get_to_its_end(self, wandb, calls, tmp_path):
        follow(tmp_path, "wandb", total_steps=10)
        assert calls[-1] == ("finish", (), {"exit_code": 1})

    def test_a_resumed_run_goes_on_there(self, wandb, calls, tmp_path):
        follow(tmp_path, "wandb")
        follow(tmp_path, "wandb")
        first, second = (options["id"] for _, options in calls.of("init"))
        assert first == second == json.loads((tmp_path / "tracking.json").read_text())["wandb"]

    def test_the_name_is_that_of_the_folder(self, wandb, calls, tmp_path):
        follow(tmp_path / "runs" / ".." / "base", "wandb")
        assert calls.of("init")[0][1]["name"] == "base"


class TestMlflow:
    def test_what_it_is_told(self, mlflow, calls, tmp_path):
        follow(tmp_path, "mlflow", project="roberta", name="first")
        assert calls.of("create_experiment") == [(("roberta",), {})]
        assert calls.of("create_run") == [(("7",), {"run_name": "first"})]
        params, first, second = (options for _, options in calls.of("log_batch"))
        assert params["params"] == [
            ("param", "steps", "3"),
            ("param", "model.size", "tiny"),
            ("param", "model.layers", "None"),
            ("param", "tracking", "{}"),
        ]
        assert first["metrics"] == [("metric", "train/loss", 2.5, 2)]
        assert second["metrics"] == [("metric", "validation/loss", 2.0, 3)]
        assert calls.of("log_dict")[0][0][2] == "summary.json"
        assert calls[-1] == ("set_terminated", ("r1",), {"status": "FINISHED"})

    def test_a_known_experiment_and_a_stop(self, mlflow, calls, tmp_path):
        mlflow.client.get_experiment_by_name = lambda name: SimpleNamespace(experiment_id="3")
        follow(tmp_path, "mlflow", total_steps=10)
        assert calls.of("create_run")[0][0] == ("3",)
        assert calls[-1] == ("set_terminated", ("r1",), {"status": "KILLED"})

    def test_a_resumed_run_goes_on_there(self, mlflow, calls, tmp_path):
        follow(tmp_path, "mlflow")
        calls.clear()
        follow(tmp_path, "mlflow")
        assert calls[0] == ("update_run", ("r1",), {"status": "RUNNING"})
        assert not calls.of("create_run")

    def test_long_values_and_many_settings_are_cut_to_what_it_takes(self, mlflow, calls, tmp_path):
        config = {f"key{number}": "x" * 900 for number in range(150)}
        (hook,) = tracking_hooks(TrackingConfig(trackers=("mlflow",)), tmp_path, config, 1)
        hook.record(RECORDS[0])
        hook.close()
        batches = [options["params"] for _, options in calls.of("log_batch")]
        assert [len(batch) for batch in batches] == [100, 50]
        assert {len(value) for batch in batches for _, _, value in batch} == {500}


class TestTrackio:
    def test_what_it_is_told(self, trackio, calls, tmp_path):
        follow(tmp_path, "trackio", name="first")
        ((_, options),) = calls.of("init")
        assert options["name"].startswith("first-")
        assert options["config"] == dict(flat_config(CONFIG))
        assert (options["resume"], options["embed"]) == ("allow", False)
        first, second, last = calls.of("log")
        assert first[0][0]["train/loss"] == 2.5
        assert (first[1], second) == ({"step": 2}, (({"validation/loss": 2.0},), {"step": 3}))
        assert (last[0][0]["summary/validation_loss"], last[0][0]["summary/finished"]) == (2.0, 1)
        assert calls[-1][0] == "finish"


class TestFailures:
    """A tracker costs the run one warning at most."""

    @pytest.mark.parametrize("broken", ["init", "log", "finish"])
    def test_one_warning_and_off(self, trackio, calls, tmp_path, caplog, broken):
        def refuse(*_, **__):
            calls.append(("refused", (), {}))
            raise ConnectionError("no route\nto host")

        if broken == "init":
            trackio.init = refuse
        else:
            run = trackio.init()
            calls.clear()
            setattr(run, broken, refuse)
        with caplog.at_level(logging.WARNING, "maskwright"):
            (hook,) = follow(tmp_path, "trackio")
            hook.record(RECORDS[1])
        assert caplog.messages == [
            "trackio: ConnectionError: no route to host; it gets no more records of this run"
        ]
        assert len(calls.of("refused")) == 1

    def test_the_others_go_on(self, trackio, wandb, calls, tmp_path, monkeypatch):
        monkeypatch.setattr(trackio, "init", lambda **_: 1 / 0)
        follow(tmp_path, "trackio", "wandb")
        assert calls[-1] == ("finish", (), {"exit_code": 0})

    def test_a_service_that_hangs_does_not_hold_the_run(self, tmp_path, caplog):
        release = threading.Event()

        class Hanging:
            name = "hanging"

            def open(self, known_id, folder, config):
                release.wait(60)
                return "id"

        hook = BackgroundTracker(Hanging(), tmp_path, {}, 3, close_seconds=0.01)
        with caplog.at_level(logging.WARNING, "maskwright"):
            hook.record(RECORDS[1])
            hook.close()
        release.set()
        assert "hanging: did not take the last records within 0.01 seconds" in caplog.text

    def test_a_service_that_does_not_keep_up(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("maskwright.training.hooks.tracking.MAX_WAITING", 2)
        release = threading.Event()

        class Hanging:
            name = "slow"

            def open(self, known_id, folder, config):
                release.wait(60)
                return "id"

        hook = BackgroundTracker(Hanging(), tmp_path, {}, 3)
        with caplog.at_level(logging.WARNING, "maskwright"):
            for _ in range(5):
                hook.record(RECORDS[1])
            hook.close()
        release.set()
        assert caplog.messages == [
            "slow: does not keep up (2 records wait); it gets no more records of this run"
        ]

    def test_a_full_disk_costs_the_id_only(self, wandb, calls, tmp_path, caplog):
        (tmp_path / "tracking.json").mkdir()
        with caplog.at_level(logging.WARNING, "maskwright"):
            follow(tmp_path, "wandb")
        assert "a resumed run will begin anew at wandb" in caplog.text
        assert calls[-1] == ("finish", (), {"exit_code": 0})

    def test_a_run_without_a_record_reaches_nobody(self, wandb, calls, tmp_path):
        follow(tmp_path, "wandb", records=[])
        assert calls == []

    @pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
    def test_a_library_that_is_not_installed(self, name, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingDependencyError, match=rf"{name} is not installed.*maskwright\[track\]"):
            follow(tmp_path, name)


class TestConfig:
    @pytest.mark.parametrize("given", ["wandb", ["wandb"], {"trackers": ["wandb"]}])
    def test_short_forms(self, given):
        assert TrackingConfig.model_validate(given).trackers == ("wandb",)

    def test_an_unknown_tracker(self):
        with pytest.raises(ConfigError, match="'neptune', expected 'wandb', 'mlflow' or 'trackio'"):
            parse_config(TrackingConfig, {"trackers": ["neptune"]}, "x")

    def test_the_same_one_twice_is_one(self, wandb, tmp_path):
        assert len(tracking_hooks(TrackingConfig(trackers=("wandb", "wandb")), tmp_path, {}, 1)) == 1


def test_memory_of_a_record():
    found = memory_fields("cpu")
    assert set(found) == {"memory_bytes", "memory_peak_bytes"}
    assert found["memory_peak_bytes"] >= found["memory_bytes"] > 1 << 20


def test_memory_of_a_gpu(monkeypatch):
    import torch

    for number, name in enumerate(("memory_allocated", "max_memory_allocated", "max_memory_reserved")):
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: (device, number))
    found = memory_fields("cuda:1")
    assert found["device_memory_bytes"] == ("cuda:1", 0)
    assert found["device_memory_peak_bytes"] == ("cuda:1", 1)
    assert found["device_memory_reserved_bytes"] == ("cuda:1", 2)


def test_share_of_padding():
    assert padding_share(200, 150) == 0.25
    assert padding_share(0, 0) == 0
