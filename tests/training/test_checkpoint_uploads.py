"""Copies of checkpoints behind the training: which are made, what stays, and what the end waits for."""

import contextlib
import logging
import os
import signal
import threading

import pytest
from checkpoint_parts import PROGRESS, make, names, state

from maskwright.core.errors import Interrupted, StorageError
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints, store, uploads
from maskwright.training.signals import stop_on_signals
from ranks import run_ranks


class Gate:
    """A storage that takes a file only when it is allowed to, and tells when it is asked to."""

    def __init__(self, checkpoints):
        self.copies, self.honest = checkpoints._uploads.copies, checkpoints._uploads.copies.put
        self.asked, self.open, self.refusals, self.steps = threading.Event(), threading.Event(), [], []
        self.copies.put = self.put

    def put(self, folder, step, names, moved):
        self.steps.append(step)
        self.asked.set()
        assert self.open.wait(60)
        if self.refusals:
            raise self.refusals.pop()
        self.honest(folder, step, names, moved)

    def wait_until_asked(self):
        assert self.asked.wait(60)
        self.asked.clear()


def make_slow(folder, **options):
    checkpoints = make(folder, upload=str(folder / "copies"), **options)
    return checkpoints, Gate(checkpoints)


def save(checkpoints, step, **options):
    return checkpoints.save(step, state(step), PROGRESS, **options)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_slow_storage_delays_no_save_and_the_newest_wins(tmp_path, asynchronous):
    checkpoints, gate = make_slow(tmp_path, keep=1, asynchronous=asynchronous)
    save(checkpoints, 1)
    gate.wait_until_asked()
    for step in (2, 3, 4):
        save(checkpoints, step)
        assert checkpoints.finish() == []
    # What is on its way stays, as does the newest; those that waited in between are gone.
    assert checkpoints.steps() == [1, 4]
    (told,) = checkpoints.poll()
    assert told == (
        "WARNING: the checkpoint of step 2 is not copied, as a newer one came before its turn; "
        f"{tmp_path / 'copies'} is slower than checkpoint.every_steps"
    )
    gate.open.set()
    checkpoints._uploads.wait()
    assert gate.steps == [1, 4]
    assert gate.copies.steps() == [1, 4]
    checkpoints.close()
    assert checkpoints.steps() == [4]


def test_what_waits_stays_too(tmp_path):
    checkpoints, gate = make_slow(tmp_path, keep=1)
    save(checkpoints, 1)
    gate.wait_until_asked()
    save(checkpoints, 2)
    assert checkpoints._uploads.held == {1, 2}
    assert checkpoints.steps() == [1, 2]
    gate.open.set()
    checkpoints.close()
    assert (gate.copies.steps(), checkpoints.steps()) == ([1, 2], [2])
    assert checkpoints._uploads.held == set()


def test_the_end_waits_for_the_newest_and_the_best(tmp_path, caplog):
    checkpoints, gate = make_slow(tmp_path, keep=1, keep_best=2)
    save(checkpoints, 1, score=5.0)
    gate.wait_until_asked()
    for step, score in ((2, 1.0), (3, 2.0), (4, 4.0), (5, 9.0)):
        save(checkpoints, step, score=score)
    closing = threading.Thread(target=checkpoints.close)
    closing.start()
    gate.open.set()
    closing.join(60)
    assert gate.steps == [1, 5, 2, 3]
    assert gate.copies.steps() == [1, 2, 3, 5]
    assert checkpoints.steps() == [2, 3, 5]
    assert "the checkpoint of step 2 is not copied" in caplog.text
    assert "checkpoints were not copied" not in caplog.text  # of those left out only step 4 has no copy


def test_the_end_says_what_was_left_out(tmp_path, caplog):
    checkpoints, gate = make_slow(tmp_path, keep=1)
    save(checkpoints, 1)
    gate.wait_until_asked()
    for step in range(2, 14):
        save(checkpoints, step)
    gate.open.set()
    checkpoints.close()
    said = "11 checkpoints were not copied, as newer ones came before their turn"
    said += " (steps 2, 3, 4, 5, 6, 7, 8, 9, ...)"
    assert caplog.records[-1].message == said
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_failure_is_told_and_the_next_is_copied(tmp_path):
    checkpoints, gate = make_slow(tmp_path)
    gate.open.set()
    gate.refusals.append(StorageError("copies: Forbidden"))
    save(checkpoints, 1)
    checkpoints._uploads.wait()
    assert checkpoints.poll() == [
        "WARNING: the checkpoint of step 1 was saved, but not copied: copies: Forbidden"
    ]
    assert checkpoints.finish() == []
    save(checkpoints, 2)
    checkpoints.close()
    assert gate.steps == [1, 2]
    assert gate.copies.steps() == [2]


def test_the_last_is_tried_once_more_at_the_end(tmp_path, caplog):
    checkpoints, gate = make_slow(tmp_path)
    gate.open.set()
    gate.refusals += [StorageError("copies: Forbidden")] * 2
    save(checkpoints, 1)
    checkpoints._uploads.wait()
    assert len(checkpoints.poll()) == 1
    checkpoints.close()
    assert gate.steps == [1, 1]
    assert caplog.messages == ["the checkpoint of step 1 was saved, but not copied: copies: Forbidden"]
    # It is tried again when the run goes on, and what was closed may be used again.
    save(checkpoints, 2)
    checkpoints.close()
    assert gate.copies.steps() == [2]


def test_what_is_saved_twice_is_copied_twice(tmp_path):
    checkpoints, gate = make_slow(tmp_path)
    save(checkpoints, 1)
    gate.wait_until_asked()
    gate.refusals.append(StorageError("copies: Forbidden"))
    save(checkpoints, 1)
    gate.open.set()
    checkpoints.close()
    assert gate.steps == [1, 1]
    assert gate.copies.steps() == [1]


def test_the_end_does_not_wait_for_ever(tmp_path, caplog):
    config = CheckpointConfig(upload=str(tmp_path / "copies"))
    checkpoints = Checkpoints(tmp_path / "checkpoints", config, {}, timeout_seconds=0.2)
    gate = Gate(checkpoints)
    save(checkpoints, 1, wait=True)
    gate.wait_until_asked()
    thread = checkpoints._uploads._thread
    checkpoints.close()
    assert caplog.messages[-1].startswith(f"{tmp_path / 'copies'}: took nothing in the last ")
    assert caplog.messages[-1].endswith("not copied: steps 1; the checkpoints here are whole")
    gate.open.set()
    thread.join(60)
    assert gate.copies.steps() == []  # nobody waits for it, so it must not go on
    assert checkpoints.steps() == [1]


def test_a_storage_that_takes_bytes_slowly_is_waited_for(tmp_path, monkeypatch, caplog):
    checkpoints, gate = make_slow(tmp_path)
    monkeypatch.setattr(uploads, "_SECONDS_BETWEEN_LINES", 0.0)
    save(checkpoints, 1)
    gate.wait_until_asked()
    caplog.set_level(logging.INFO)
    thread = checkpoints._uploads._thread

    def join(seconds):
        if any("waiting for the copy" in message for message in caplog.messages):
            gate.open.set()
            threading.Thread.join(thread, 60)

    monkeypatch.setattr(thread, "join", join)
    checkpoints.close()
    assert f"waiting for the copy of step 1 to {tmp_path / 'copies'}, 0.00 GB sent" in caplog.text
    assert gate.copies.steps() == [1]


@pytest.mark.parametrize(("error", "copied"), [(Interrupted("SIGTERM"), [1]), (ValueError("no"), [])])
def test_a_run_that_fails_does_not_wait_for_copies(tmp_path, error, copied):
    checkpoints, gate = make_slow(tmp_path)
    save(checkpoints, 1)
    gate.wait_until_asked()

    def close():
        try:
            raise error
        except type(error):
            checkpoints.close()

    closing = threading.Thread(target=close)
    closing.start()
    with checkpoints._uploads._changed:
        assert checkpoints._uploads._changed.wait_for(lambda: checkpoints._uploads._closing, 60)
    gate.open.set()
    closing.join(60)
    assert not closing.is_alive()
    assert gate.copies.steps() == copied


def test_a_signal_leaves_less_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store, "HURRY_SECONDS", 0.2)
    checkpoints, gate = make_slow(tmp_path)
    save(checkpoints, 1)
    gate.wait_until_asked()
    thread = checkpoints._uploads._thread
    with pytest.raises(Interrupted), contextlib.closing(checkpoints):
        raise Interrupted("SIGTERM")
    assert caplog.messages[-1].endswith("not copied: steps 1; the checkpoints here are whole")
    gate.open.set()
    thread.join(60)
    assert gate.copies.steps() == []


def test_a_signal_while_the_end_waits_leaves_less_time_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(uploads, "HURRY_SECONDS", 0.2)
    checkpoints, gate = make_slow(tmp_path)
    save(checkpoints, 1)
    gate.wait_until_asked()
    thread = checkpoints._uploads._thread
    with stop_on_signals():
        closing = threading.Timer(0, os.kill, (os.getpid(), signal.SIGTERM))
        closing.start()
        checkpoints.close()
    assert caplog.messages[-1].endswith("not copied: steps 1; the checkpoints here are whole")
    gate.open.set()
    thread.join(60)
    assert gate.copies.steps() == []


def test_a_rank_that_is_gone_ends_copying_and_is_told(tmp_path):
    checkpoints, gate = make_slow(tmp_path)
    gate.open.set()
    gate.refusals.append(RuntimeError("Connection closed by peer"))
    save(checkpoints, 1)
    checkpoints._uploads.wait()
    assert checkpoints.poll() == ["WARNING: no more checkpoints are copied: Connection closed by peer"]
    save(checkpoints, 2)
    checkpoints.close()
    assert gate.steps == [1]
    assert checkpoints.steps() == [1, 2]


def test_what_the_storage_took_is_counted(tmp_path):
    for upload in (str(tmp_path / "copies"), "memory://test-uploads/counted"):
        checkpoints = make(tmp_path / "run", upload=upload)
        path = save(checkpoints, 1)
        checkpoints.close()
        files = [file for file in path.iterdir() if file.name != "manifest.json"]
        assert checkpoints._uploads._moved_bytes == sum(file.stat().st_size for file in files)


def slow_on_rank_1(world, folder):
    """Rank 1 holds its share of the first copy back until three more were saved."""
    config = CheckpointConfig(every_steps=1, keep=1, keep_best=1, upload=str(folder / "copies"))
    checkpoints = Checkpoints(folder / "checkpoints", config, {"config": "x: 1\n"}, world)
    gate = Gate(checkpoints)
    if world.rank == 0:
        gate.open.set()
    save(checkpoints, 1, score=9.0)
    gate.wait_until_asked()
    for step, score in ((2, 1.0), (3, 5.0), (4, 7.0)):
        save(checkpoints, step, score=score)
        assert checkpoints.finish() == []
    world.wait()
    before = checkpoints.steps()
    world.wait()
    gate.open.set()
    checkpoints.close()
    world.wait()
    return gate.steps, before, checkpoints.steps()


@pytest.mark.distributed
def test_ranks_copy_the_same_checkpoints_together(tmp_path):
    for steps, before, after in run_ranks(2, slow_on_rank_1, tmp_path):
        assert steps == [1, 4, 2]
        assert before == [1, 2, 4]
        assert after == [2, 4]
    for name in ("step-00000001", "step-00000002", "step-00000004"):
        assert names(tmp_path / "copies" / name) == [
            ".metadata",
            "__0_0.distcp",
            "__1_0.distcp",
            "manifest.json",
        ]
    assert make(tmp_path / "elsewhere", upload=str(tmp_path / "copies")).load_newest().step == 4
