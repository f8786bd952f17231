"""Which checkpoints stay."""

import errno
import math

import pytest
from checkpoint_parts import PROGRESS, flip, make, state
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints.retention import steps_that_stay


def config(**options):
    return CheckpointConfig(**{"keep": 1, "every_steps": 1, **options})


@given(
    st.sets(st.integers(1, 60), min_size=1),
    st.integers(1, 4),
    st.none() | st.integers(1, 20),
    st.integers(0, 3),
    st.data(),
)
def test_what_the_rules_say(steps, keep, every, best, data):
    ordered = sorted(steps)
    newest = data.draw(st.sampled_from(ordered))
    scores = {step: data.draw(st.none() | st.integers(0, 3).map(float)) for step in ordered}
    stay = steps_that_stay(ordered, newest, scores, config(keep=keep, keep_every_steps=every, keep_best=best))
    earlier = [step for step in ordered if step <= newest]
    assert newest in stay
    assert stay <= steps
    assert {step for step in steps if step > newest} <= stay
    assert set(earlier[-keep:]) <= stay
    for step in set(earlier) - stay:
        assert every is None or step % every
        if scores[step] is not None:
            better = [one for one in earlier if scores[one] is not None and scores[one] <= scores[step]]
            assert len([one for one in better if one in stay]) >= best
    most = keep + best + (0 if every is None else sum(step % every == 0 for step in earlier))
    assert len([step for step in stay if step <= newest]) <= most


def test_of_equal_losses_the_first_is_the_best():
    scores = {1: 3.0, 2: 2.0, 3: 2.0, 4: 2.5, 5: None}
    assert steps_that_stay([1, 2, 3, 4, 5], 5, scores, config(keep_best=1)) == {2, 5}
    assert steps_that_stay([1, 2, 3, 4, 5], 5, scores, config(keep_best=3)) == {2, 3, 4, 5}


def test_the_best_and_every_so_many_stay_over_restarts(tmp_path):
    losses = [5.0, 1.0, 4.0, math.nan, 3.0, 2.0, None, 6.0, 7.0]
    for step, loss in enumerate(losses, start=1):
        # A new object has to find the losses in the manifests.
        make(tmp_path, keep=1, keep_every_steps=5, keep_best=2).save(step, state(), PROGRESS, score=loss)
    assert make(tmp_path).steps() == [2, 5, 6, 9]


def test_a_damaged_one_is_not_among_the_best(tmp_path):
    options = {"keep": 1, "keep_best": 1}
    flip(make(tmp_path, **options).save(1, state(), PROGRESS, score=1.0) / "manifest.json")
    make(tmp_path, **options).save(2, state(), PROGRESS, score=2.0)
    make(tmp_path, **options).save(3, state(), PROGRESS, score=3.0)
    assert make(tmp_path).steps() == [2, 3]


def test_a_device_that_does_not_list_what_is_old_spoils_no_save(tmp_path, monkeypatch):
    checkpoints = make(tmp_path, keep=1)
    checkpoints.save(1, state(), PROGRESS)

    def refuse(folder):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("maskwright.training.checkpoints.store.steps_below", refuse)
        checkpoints.save(2, state(), PROGRESS)
    assert (checkpoints.steps(), checkpoints.finish()) == ([1, 2], [])
    checkpoints.save(3, state(), PROGRESS)
    assert checkpoints.steps() == [3]


def test_steps_that_would_never_be_saved_are_refused():
    said = (
        r"keep_every_steps 250 is no multiple of every_steps 100, so that most of them would never be saved; "
        "change one of them"
    )
    with pytest.raises(ConfigError, match=said):
        parse_config(CheckpointConfig, {"every_steps": 100, "keep_every_steps": 250}, "x.yaml")
    assert CheckpointConfig(every_steps=100, keep_every_steps=300).keep_every_steps == 300
