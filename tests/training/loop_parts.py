"""The smallest parts of a training loop for tests: a line, its stream, and a hook that remembers."""

import os
import signal
from dataclasses import dataclass, field

import torch
from torch import nn

from maskwright.core.errors import CheckpointError, OutOfReachError
from maskwright.parallel.single import SingleEngine
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints
from maskwright.training.loop import train
from maskwright.training.parts import Parts, Plan
from maskwright.training.schedules import Schedule, ScheduleConfig
from maskwright.training.spikes import SpikeConfig, SpikeGuard
from maskwright.training.watch import Watch

COUNTS = {"eligible": 20, "expected_targets": 3.0, "mask_variance": 2.5, "real_tokens": 4}


@dataclass(frozen=True)
class Numbers:
    """Two inputs of a line."""

    values: torch.Tensor
    targets: dict = field(default_factory=lambda: {"loss": 2})
    num_tokens: int = 6
    samples: tuple = ()
    counts: dict = field(default_factory=lambda: dict(COUNTS))


class Stream:
    """Step `i` has the inputs `seed + i` and 1, in two micro-batches."""

    def __init__(self, seed=0, away_at=None):
        self.seed, self.consumed, self.shares, self.away_at = seed, 0, [], away_at

    def next_step(self, share_done):
        if self.consumed + 1 == self.away_at:
            raise OutOfReachError("far://data: cannot be read")
        self.consumed += 1
        self.shares.append(share_done)
        values = torch.tensor([float(self.seed + self.consumed), 1.0])
        return [Numbers(values, samples=(2 * self.consumed + part,)) for part in range(2)]

    def state(self):
        return {"seed": self.seed, "consumed": self.consumed}

    def restore(self, state):
        if state["seed"] != self.seed:
            raise CheckpointError("another seed")
        self.consumed = state["consumed"]


class Hook:
    """Remembers everything, and may do something at a record."""

    def __init__(self, at=None):
        self.records, self.closed, self.at = [], 0, at

    def record(self, record):
        self.records.append(record)
        if self.at is not None:
            self.at(record)

    def close(self):
        self.closed += 1

    def steps(self, kind):
        return [record["step"] for record in self.records if record["kind"] == kind]

    def messages(self):
        return [record["message"] for record in self.records if record["kind"] == "event"]


def objective(model, batch, *, train):
    loss = ((model.weight * batch.values).sum() - 1) ** 2
    return {"loss": loss}, {"correct": torch.tensor(1)}


class Broken:
    """An objective whose loss is not finite at some steps, counted over the run."""

    def __init__(self, bad, factor=float("nan")):
        self.bad, self.factor, self.calls = bad, factor, 0

    def __call__(self, model, batch, *, train):
        self.calls += 1
        losses, sums = objective(model, batch, train=train)
        bad = (self.calls - 1) // 2 + 1 in self.bad
        return {"loss": losses["loss"] * (self.factor if bad else 1.0)}, sums


def weight_sum(engine):
    return {"loss": engine.model.weight.sum().item()}


def run(
    folder,
    steps=10,
    hook=None,
    goal=objective,
    seed=0,
    keep=2,
    evaluate=weight_sum,
    spikes=None,
    schedule=None,
    precision="fp32",
    away_at=None,
    finish=lambda result: result,
    watch=None,
    **plan,
):
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)

    def make(named):
        return torch.optim.AdamW([p for _, p in named], lr=0.1)

    engine = SingleEngine(model, make, "cpu", precision, 1.0)
    parts = Parts(
        stream=Stream(seed, away_at),
        objective=goal,
        engine=engine,
        checkpoints=Checkpoints(folder / "checkpoints", CheckpointConfig(keep=keep), {}),
        evaluate=evaluate,
        hooks=[hook] if hook else [],
        spikes=SpikeGuard(spikes or SpikeConfig(policy="off")),
        finish=finish,
        watch=watch or Watch(),
    )
    settings = {"evaluate_every": 4, "checkpoint_every": 3, "log_every": 2, **plan}
    shape = schedule or ScheduleConfig(name="linear", warmup_share=0)
    result = train(parts, Plan(schedule=Schedule(shape, 0.1, steps), **settings))
    return result, model.weight.detach().clone(), parts


def stop_at(step, number=signal.SIGTERM):
    def act(record):
        if record["kind"] == "train" and record["step"] == step:
            os.kill(os.getpid(), number)

    return act
