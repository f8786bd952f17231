"""The spike guard: what it refuses, what it only tells, when it ends the run, and whom it names."""

import json
import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, UserError
from maskwright.parallel.gradient_norms import GradientNorms
from maskwright.parallel.single import SingleEngine
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.training.spikes import (
    MicroLoss,
    SpikeConfig,
    SpikeGuard,
    place_of,
    point_to_samples,
)

NAN = math.nan


def norms(total, **groups):
    return GradientNorms(total, groups)


def settled(policy="skip", steps=10, locate=None, **settings):
    """A guard that has seen ordinary steps: losses near 2, norms near 1."""
    guard = SpikeGuard(SpikeConfig(policy=policy, window=10, **settings), locate)
    for step in range(1, steps + 1):
        assert judge(guard, step, 2 + 0.1 * (step % 3), norms(1 + 0.1 * (step % 2))) == (None, None)
    return guard


def judge(guard, step, loss, found, batches=()):
    """One step as the loop does it: the engine's reason, and what is told."""
    guard.watch(step, loss, batches)
    reason = guard.accept(found)
    return reason, guard.report(reason)


@pytest.mark.parametrize("policy", ["skip", "warn", "off"])
@pytest.mark.parametrize(
    ("loss", "found", "said"),
    [
        (NAN, norms(1.0), "the loss is nan"),
        (math.inf, norms(1.0), "the loss is inf"),
        (
            2.0,
            norms(NAN, embeddings=1.0, head=NAN, norms=math.inf),
            r"the gradient is not finite (head nan, norms inf)",
        ),
        (2.0, norms(math.inf), "the gradient is not finite (inf)"),
    ],
)
def test_what_is_no_number_is_always_skipped(policy, loss, found, said):
    guard = SpikeGuard(SpikeConfig(policy=policy))
    reason, line = judge(guard, 1, loss, found)
    assert reason == said
    assert line == f"{said}; the step was skipped and no weight changed"
    assert guard.skipped_in_a_row == 1


SPIKES = [
    (2.0, norms(11.0), "the gradient norm is 11, the median of the last 10 steps is 1.05"),
    (
        9.0,
        norms(1.0),
        "the loss is 9.0000, the median of the last 10 steps is 2.1000 and their spread 0.1483",
    ),
]


@pytest.mark.parametrize(("loss", "found", "said"), SPIKES)
def test_a_spike_is_skipped_told_or_left(loss, found, said):
    reason, line = judge(settled("skip"), 11, loss, found)
    assert reason == said
    assert line == f"{said}; the step was skipped and no weight changed"
    assert judge(settled("warn"), 11, loss, found) == (None, f"WARNING: {said}")
    assert judge(settled("off"), 11, loss, found) == (None, None)


@pytest.mark.parametrize(("loss", "found"), [(3.5, norms(1.0)), (2.0, norms(10.4)), (0.1, norms(0.01))])
def test_what_is_large_but_ordinary_passes(loss, found):
    assert judge(settled(), 11, loss, found) == (None, None)


def test_nothing_is_a_spike_before_the_window_is_full():
    guard = settled(steps=9)
    assert judge(guard, 10, 1e9, norms(1e9)) == (None, None)


def test_the_factors_are_the_users():
    assert judge(settled(norm_factor=20), 11, 2.0, norms(11.0))[0] is None
    assert judge(settled(norm_factor=2), 11, 2.0, norms(2.2))[0] is not None
    assert judge(settled(loss_deviations=60), 11, 9.0, norms(1.0))[0] is None


def test_a_skipped_spike_leaves_no_trace_and_a_told_one_little():
    skipping, warning = settled("skip"), settled("warn")
    for _ in range(4):
        assert judge(skipping, 11, 9.0, norms(50.0))[0] is not None
        assert judge(warning, 11, 9.0, norms(50.0))[1] is not None
    assert max(skipping.norms) < 2
    assert list(warning.norms)[-4:] == [50.0] * 4


def test_a_loss_that_never_changes_has_a_spread_all_the_same():
    guard = SpikeGuard(SpikeConfig(policy="skip", window=10))
    for step in range(1, 11):
        judge(guard, step, 5.0, norms(0.0))
    # Norms of zero have no multiple, and a tenth of the loss is ten spreads.
    assert judge(guard, 11, 5.4, norms(3.0))[0] is None
    assert judge(guard, 12, 5.6, norms(3.0))[0] is not None


def test_an_ordinary_step_ends_the_row():
    guard = settled(max_skipped=3)
    for _ in range(4):
        for step in (11, 12):
            assert judge(guard, step, NAN, norms(1.0))[0] is not None
        assert judge(guard, 13, 2.0, norms(1.0)) == (None, None)
    assert guard.skipped_in_a_row == 0


def test_too_many_in_a_row_end_the_run():
    guard = SpikeGuard(SpikeConfig(max_skipped=3), lambda samples: [f"<{number}>" for number in samples])
    for step in (7, 8):
        judge(guard, step, NAN, norms(1.0))
    said = (
        r"step 9: the loss is nan; it is the last of 3 steps in a row that were skipped; highest loss in "
        r"samples 4 to 5 \(<4>; <5>\); the run has diverged: lower optimizer.lr or use precision=fp32, and "
        "start again"
    )
    with pytest.raises(UserError, match=said):
        judge(guard, 9, NAN, norms(1.0), [MicroLoss(1.0, 1, [1, 2]), MicroLoss(NAN, 1, [4, 5])])


def test_too_many_spikes_in_a_row_have_their_own_remedy():
    guard = settled(max_skipped=2)
    judge(guard, 11, 9.0, norms(1.0))
    said = (
        r"step 12: the loss is 9.0000.*lower optimizer.lr, look at these samples, or set spikes.policy=warn"
    )
    with pytest.raises(UserError, match=said):
        judge(guard, 12, 9.0, norms(1.0))


def test_a_refusal_of_the_engine_itself_is_told_and_not_counted():
    guard = SpikeGuard(SpikeConfig())
    guard.watch(1, 2.0)
    assert guard.report("overflow in fp16") == (
        "overflow in fp16; the step was skipped and no weight changed"
    )
    assert guard.skipped_in_a_row == 0
    assert guard.state()["norms"] == []


def test_the_micro_batch_with_the_highest_mean_is_named():
    batches = [
        MicroLoss(90.0, 30, range(8)),
        MicroLoss(40.0, 10, [8, 9, 12, 10]),
        MicroLoss(5.0, 0, [99]),
    ]
    assert judge(settled(), 11, 9.0, norms(1.0), batches[:2])[1].endswith(
        "no weight changed; highest loss in samples 8 to 10, 12"
    )
    for bad in (NAN, math.inf, -math.inf):
        broken = [*batches, MicroLoss(bad, 10, [77])]
        assert judge(settled(), 11, 9.0, norms(1.0), broken)[1].endswith("highest loss in samples 77")


def test_only_the_first_samples_are_looked_up():
    asked = []

    def locate(samples):
        asked.extend(samples)
        return ["here"] * len(samples)

    guard = SpikeGuard(SpikeConfig(), locate)
    assert guard.describe(range(10, 17)) == (
        "; highest loss in samples 10 to 16 (here; here; here; here; and 3 more)"
    )
    assert asked == [10, 11, 12, 13]
    assert guard.describe([]) == ""


def test_the_state_survives_json_and_decides_the_same():
    one = settled()
    judge(one, 11, NAN, norms(1.0))
    two = SpikeGuard(one.config)
    two.restore(json.loads(json.dumps(one.state())))
    assert two.state() == one.state()
    assert two.skipped_in_a_row == 1
    for step, (loss, found, _) in enumerate(SPIKES * 2, 12):
        assert judge(two, step, loss, found) == judge(one, step, loss, found)
    two.restore({})
    assert two.state() == {"losses": [], "norms": [], "skipped_in_a_row": 0}


def test_a_window_that_became_shorter_keeps_the_newest():
    guard = SpikeGuard(SpikeConfig(window=10))
    guard.restore({"losses": list(range(20)), "norms": list(range(20)), "skipped_in_a_row": 0})
    assert list(guard.losses) == list(range(10, 20))


@pytest.mark.parametrize(
    "values", [{"policy": "stop"}, {"window": 3}, {"max_skipped": 0}, {"norm_factor": 1}]
)
def test_settings_that_make_no_sense(values):
    with pytest.raises(ConfigError, match=f'"{next(iter(values))}" is .*, expected '):
        parse_config(SpikeConfig, values, "recipe")


def test_no_weight_changes_in_a_refused_step():
    """Through the engine: neither weights nor the optimiser's averages see the spike."""
    model = torch.nn.Linear(2, 1)
    engine = SingleEngine(model, lambda named: torch.optim.AdamW([p for _, p in named]), "cpu", "fp32", 1.0)

    def objective(model, batch, *, train):
        return {"loss": (model.weight * batch).sum() + model.bias.sum()}, {}

    guard = SpikeGuard(SpikeConfig(policy="skip", window=10))

    def step(number, size):
        loss = engine.forward_backward(objective, torch.tensor([size, 1.0]), {"loss": 1})["loss_sum"]
        guard.watch(number, loss, [MicroLoss(loss, 1, [number])])
        outcome = engine.step(0.01, guard.accept)
        return outcome, guard.report(outcome.reason)

    for number in range(1, 11):
        outcome, line = step(number, 1.0)
        assert outcome.applied
        assert line is None
    before = {name: value.clone() for name, value in engine.weights().items()}
    moments = {name: value["exp_avg"].clone() for name, value in engine.state()["optimizer"].items()}
    outcome, line = step(11, 1e4)
    assert not outcome.applied
    assert outcome.reason.startswith("the gradient norm is 1e+04, the median of the last 10 steps is")
    assert line.endswith("highest loss in samples 11")
    assert all(torch.equal(value, before[name]) for name, value in engine.weights().items())
    after = engine.state()["optimizer"]
    assert all(torch.equal(after[name]["exp_avg"], value) for name, value in moments.items())
    assert step(12, 1.0)[0].applied


def fake_data():
    """Three shards with documents of 2, 0, 4 / 9 / 3, 1 ids, each closed by one more."""
    lengths = [[2, 0, 4], [9], [3, 1]]
    names = ["wiki", "wiki", "books"]
    shards = [
        SimpleNamespace(
            num_tokens=sum(one) + len(one),
            num_documents=len(one),
            source=name,
            tokens=SimpleNamespace(path=f"{number}.bin"),
        )
        for number, (one, name) in enumerate(zip(lengths, names, strict=True))
    ]
    return SimpleNamespace(
        shards=shards,
        token_ends=np.cumsum([shard.num_tokens for shard in shards]),
        document_ends=np.cumsum([shard.num_documents for shard in shards]),
        document_lengths=lambda shard, limit: np.array(lengths[shard][:limit], np.int64),
    )


@pytest.mark.parametrize(
    ("positions", "documents", "shards", "source"),
    [
        ([0, 1, 2], (0,), ("0.bin",), "wiki"),
        ([-1, 2, 3, 4, -1], (0, 1, 2), ("0.bin",), "wiki"),
        ([3], (1,), ("0.bin",), "wiki"),
        ([8, 9, 10, 11], (2, 3), ("0.bin", "1.bin"), "wiki"),
        ([19, 20, 21, 22, 23, 24], (4, 5), ("2.bin",), "books"),
        # Segments of a pair lie apart.
        ([-1, 0, 1, -1, 12, 13, -1], (0, 3), ("0.bin", "1.bin"), "wiki"),
    ],
)
def test_the_documents_of_a_sample(positions, documents, shards, source):
    found = place_of(fake_data(), 7, np.array(positions, np.int64))
    assert (found.sample, found.documents, found.shards, found.source) == (7, documents, shards, source)


def test_a_place_reads_well():
    one = place_of(fake_data(), 7, np.array([0, 1], np.int64))
    assert str(one) == "sample 7: document 0 of source wiki in 0.bin"
    several = place_of(fake_data(), 8, np.arange(8, 12))
    assert str(several) == "sample 8: documents 2 to 3 of source wiki in 0.bin, 1.bin"


def test_samples_of_real_data_lie_in_the_documents_that_are_named(data_folder):
    data = open_split(data_folder, "train")
    stream = SampleStream(data, 32, 0, 2, seed=3)
    places = point_to_samples(data, stream.batch, [0, 5, 11])
    for number, place in zip([0, 5, 11], places, strict=True):
        assert place.sample == number
        assert set(place.shards) <= {shard.tokens.path for shard in data.shards}
        batch = stream.batch(number, 1)
        tokens = np.ravel(batch.ids)[np.ravel(batch.positions) >= 0].tolist()
        # The named documents, each with its closing id, hold the window; fewer do not.
        texts = [[*data.document(document).tolist(), 2] for document in place.documents]
        assert holds(texts, tokens)
        assert not holds(texts[1:], tokens)
        assert not holds(texts[:-1], tokens)


def holds(texts, part):
    row = list(chain.from_iterable(texts))
    return any(row[start : start + len(part)] == part for start in range(len(row) - len(part) + 1))
