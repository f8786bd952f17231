"""A profile gives each operation to its part, forward and backward, and the parts add up to the step."""

import errno
import gzip
import json
import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.model.config import EncoderConfig
from maskwright.model.dropout import DropoutKeys
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout
from maskwright.training.profiling import PARTS, ProfileConfig, Profiler, attribute, profile_table

CONFIG = EncoderConfig(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=40,
)


class Stream:
    def next_step(self):
        return torch.arange(64) % 300


class Engine:
    """The smallest engine: a masked language model with dropout, and AdamW."""

    def __init__(self):
        self.model = MaskedLM(CONFIG)
        initialize(self.model, 0, 0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def forward_backward(self, ids):
        targets = torch.arange(0, 64, 7)
        keys = DropoutKeys(np.arange(2))
        loss, _ = self.model(ids, Layout([32, 32]), targets, ids[targets], keys)
        (loss / len(targets)).backward()

    def step(self, lr):
        self.optimizer.step()
        self.optimizer.zero_grad()


def run(folder, config, steps, engine=None, stream=None):
    engine, stream = engine or Engine(), stream or Stream()
    profiler = Profiler(config, folder, engine, stream)
    for number in range(101, 101 + steps):
        with profiler.step(number):
            engine.forward_backward(stream.next_step())
            engine.step(1e-3)
    return profiler, engine, stream


def read(folder):
    return json.loads((folder / "profile" / "table.json").read_text())


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    _, engine, stream = run(folder, ProfileConfig(steps=2, first=3), 6)
    return folder, engine, stream


def operations(folder):
    rows = {row["part"]: row for row in read(folder)["parts"]}
    return {name: {each["name"] for each in row["operations"]} for name, row in rows.items()}


def test_which_steps_are_profiled(profiled):
    assert read(profiled[0])["steps"] == [103, 104]


def test_the_parts_add_up_to_the_step(profiled):
    table = read(profiled[0])
    assert sum(row["share"] for row in table["parts"]) == pytest.approx(1.0)
    assert sum(row["ms"] for row in table["parts"]) == pytest.approx(table["step_ms"])
    for row in table["parts"]:
        assert row["ms"] == pytest.approx(row["forward_ms"] + row["backward_ms"])
    with gzip.open(profiled[0] / "profile" / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    steps = [event["dur"] for event in events if event.get("name") == "maskwright:step" and "dur" in event]
    assert table["step_ms"] == pytest.approx(sum(steps[:2]) / 2 / 1000, rel=1e-3)


@pytest.mark.parametrize(
    ("part", "forward", "backward"),
    [
        ("embeddings", "_Lookup", "_LookupBackward"),
        ("attention", "_BlockAttention", "_BlockAttentionBackward"),
        ("feed-forward", "_FeedForward", "_FeedForwardBackward"),
        ("norms", "aten::native_layer_norm", "aten::native_layer_norm_backward"),
        ("dropout", "_KeyedDropout", "_KeyedDropoutBackward"),
        ("head", "aten::gelu", "aten::gelu_backward"),
        ("loss", "_VocabularyCrossEntropy", "_VocabularyCrossEntropyBackward"),
    ],
)
def test_functions_with_a_backward_of_their_own_are_counted(profiled, part, forward, backward, monkeypatch):
    monkeypatch.setattr("maskwright.training.profiling._TOP", 1000)
    found = part_of_every_operation(profiled)
    assert forward in found[part]
    assert backward in found[part]
    for other in ("attention", "feed-forward", "head", "loss"):
        if other != part and forward.startswith("_") and part != "dropout":
            assert forward not in found[other]


def part_of_every_operation(profiled):
    _, engine, stream = profiled
    found = {}

    class Keeping(Profiler):
        def close(self):
            if self._session is not None:
                self._session.close()
                self._session = None
                spent, _ = attribute(self._profile.events())
                found.update({name: set(part.operations) for name, part in spent.items()})

    profiler = Keeping(ProfileConfig(steps=1, first=1), profiled[0], engine, stream)
    with profiler.step(1):
        engine.forward_backward(stream.next_step())
        engine.step(1e-3)
    return found


def test_data_and_optimizer_are_parts(profiled):
    found = part_of_every_operation(profiled)
    assert "aten::arange" in found["data"]
    assert "Optimizer.step#AdamW.step" in found["optimizer"]
    assert "torch::autograd::AccumulateGrad" in found["other"]


def test_nothing_is_left_behind(profiled):
    _, engine, stream = profiled
    assert not vars(stream)
    assert "step" not in vars(engine)
    for module in engine.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_table_for_people(profiled):
    lines = (profiled[0] / "profile" / "table.md").read_text().splitlines()
    assert lines[0] == "# Where the time of steps 103 to 104 went"
    names = [line.split("|")[1].strip() for line in lines[4:]]
    assert names[-1] == "all"
    assert names[:-1] == [name for name in PARTS if name in names]
    assert {"embeddings", "attention", "feed-forward", "norms", "head", "loss", "optimizer", "data"} <= set(
        names
    )


def test_off_costs_nothing(tmp_path):
    profiler, _, stream = run(tmp_path, ProfileConfig(), 4)
    profiler.close()
    assert not vars(stream)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_early_keeps_what_was_profiled(tmp_path):
    profiler, *_ = run(tmp_path, ProfileConfig(steps=50, first=2), 3)
    profiler.close()
    assert read(tmp_path)["steps"] == [102, 103]
    assert "steps 102 to 103" in (tmp_path / "profile" / "table.md").read_text()


def test_a_step_that_fails_is_not_counted(tmp_path):
    engine, stream = Engine(), Stream()
    profiler = Profiler(ProfileConfig(steps=5, first=1), tmp_path, engine, stream)
    with profiler.step(1):
        engine.forward_backward(stream.next_step())
    with pytest.raises(IndexError), profiler.step(2):
        engine.model(torch.tensor([400]), Layout([1]), torch.tensor([0]), torch.tensor([1]))
    profiler.close()
    assert read(tmp_path)["steps"] == [1]
    assert (tmp_path / "profile" / "table.md").read_text().startswith("# Where the time of step 1 went")


def test_a_full_disk_costs_the_profile_and_not_the_run(tmp_path, monkeypatch, caplog):
    def refuse(self, path):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr("torch.profiler.profile.export_chrome_trace", refuse)
    with caplog.at_level(logging.WARNING, "maskwright"):
        run(tmp_path, ProfileConfig(steps=1, first=1), 2)
    assert "no profile was written: " in caplog.text
    assert list((tmp_path / "profile").iterdir()) == []


def test_a_session_without_a_whole_step_writes_nothing(tmp_path):
    engine, stream = Engine(), Stream()
    profiler = Profiler(ProfileConfig(steps=1, first=1), tmp_path, engine, stream)
    with pytest.raises(KeyError), profiler.step(1):
        raise KeyError
    profiler.close()
    assert list(tmp_path.iterdir()) == []


@dataclass
class Event:
    """What `attribute` reads of an event of the profiler."""

    name: str
    start: float = 0.0
    stop: float = 0.0
    children: list[Any] = field(default_factory=list)
    kernels: list[Any] = field(default_factory=list)
    sequence_nr: int = -1
    fwd_thread: int = 0
    thread: int = 1
    device: str = "CPU"

    @property
    def cpu_children(self):
        return self.children

    @property
    def device_type(self):
        return SimpleNamespace(name=self.device)

    @property
    def time_range(self):
        return SimpleNamespace(elapsed_us=lambda: self.stop - self.start)


def kernel(duration):
    return SimpleNamespace(duration=duration)


def test_on_a_gpu_the_time_is_that_of_kernels_and_the_rest_is_idle():
    forward = Event("aten::mm", kernels=[kernel(30), kernel(10)], sequence_nr=7)
    layer = Event("maskwright:layer", children=[Event("maskwright:attention", children=[forward])])
    node = Event(
        "MmBackward0", children=[Event("aten::mm", kernels=[kernel(20)])], sequence_nr=7, fwd_thread=1
    )
    evaluated = Event(
        "autograd::engine::evaluate_function: MmBackward0",
        children=[node],
        sequence_nr=7,
        fwd_thread=1,
        thread=2,
    )
    step = Event("maskwright:step", 0, 100, [layer, evaluated])
    on_device = Event("maskwright:step", 5, 90, device="CUDA")
    spent, wall = attribute([step, on_device, layer, forward, evaluated, node])
    assert wall == 100
    assert (spent["attention"].forward, spent["attention"].backward) == (40, 20)
    assert spent["idle"].forward == 40
    table = profile_table((spent, wall), [5])
    assert [(row["part"], row["share"]) for row in table["parts"]] == [("attention", 0.6), ("idle", 0.4)]


def test_backward_of_a_recomputed_layer_belongs_to_the_layer():
    """Checkpointing runs a layer again inside of a backward node, with a backward pass inside of that."""
    again = Event("_FeedForward", 10, 20, sequence_nr=3)
    layer = Event("maskwright:layer", 10, 20, [again])
    inner = Event(
        "autograd::engine::evaluate_function: _FeedForwardBackward", 20, 50, [], [], 3, fwd_thread=1
    )
    outer = Event(
        "autograd::engine::evaluate_function: CheckpointBackward", 10, 50, [layer, inner], [], 1, fwd_thread=1
    )
    spent, wall = attribute([Event("maskwright:step", 0, 60, [outer])])
    assert spent["feed-forward"].backward == 40
    assert spent["other"].forward == wall - 40
