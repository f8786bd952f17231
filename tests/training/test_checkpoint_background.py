"""Saving behind the training: what is saved, what waits, and how failures are told."""

import contextlib
import logging
import threading

import pytest
import torch
from checkpoint_parts import PROGRESS, assert_equal, make, names, state

import maskwright.training.checkpoints.store as store
from maskwright.core.errors import StorageError
from maskwright.training.checkpoints.background import Background
from maskwright.training.checkpoints.staging import Staging
from maskwright.training.watch import WorkerLost


@pytest.fixture
def gate(monkeypatch):
    """Nothing is written before the gate is opened."""
    opened, honest = threading.Event(), store.write_tensors

    def write(*arguments):
        assert opened.wait(60)
        return honest(*arguments)

    monkeypatch.setattr(store, "write_tensors", write)
    return opened


@pytest.fixture
def refuse(monkeypatch):
    """The first so many saves fail: `refuse(error, times)`."""

    def install(error, times=1):
        honest, left = store.write_tensors, [error] * times

        def write(*arguments):
            if left:
                raise left.pop()
            return honest(*arguments)

        monkeypatch.setattr(store, "write_tensors", write)

    return install


FULL = OSError(28, "No space left on device")


def test_training_goes_on_and_changes_nothing_of_what_is_saved(tmp_path, gate):
    checkpoints, tensors, progress = make(tmp_path, asynchronous=True), state(1), {"losses": [1.5]}
    path = checkpoints.save(1, tensors, progress)
    tensors["model"]["a.weight"].zero_()
    tensors["optimizer"]["b"]["step"] += 1
    progress["losses"].append(2.5)
    assert (checkpoints.steps(), checkpoints.poll()) == ([], [])
    gate.set()
    assert checkpoints.finish() == []
    found = checkpoints.load_newest()
    assert (checkpoints.path(1), found.progress) == (path, {"losses": [1.5]})
    assert_equal(found.tensors, state(1))
    assert names(checkpoints.folder) == ["step-00000001"]


def test_a_save_waits_for_the_one_before(tmp_path, gate, monkeypatch):
    checkpoints, honest = make(tmp_path, asynchronous=True), Background.take

    def take(background):
        gate.set()  # only when the next save has come here may the one before go on
        return honest(background)

    checkpoints.save(1, state(1), PROGRESS)
    monkeypatch.setattr(Background, "take", take)
    checkpoints.save(2, state(2), PROGRESS)
    checkpoints.save(3, state(3), PROGRESS, wait=True)
    assert checkpoints.steps() == [2, 3]
    assert_equal(checkpoints.load(2).tensors, state(2))
    assert_equal(checkpoints.load(3).tensors, state(3))


def test_a_failure_is_told_once_and_the_next_save_is_good(tmp_path, refuse):
    checkpoints = make(tmp_path, asynchronous=True)
    checkpoints.save(1, state(1), PROGRESS, wait=True)
    refuse(FULL, 2)
    said = (
        f"WARNING: no checkpoint was saved: {checkpoints.path(2)}: No space left on device; free some space "
        "or choose another folder, then run the same command again"
    )
    checkpoints.save(2, state(2), PROGRESS)
    assert checkpoints.finish() == [said]
    assert checkpoints.poll() == [said]
    assert checkpoints.poll() == []
    assert checkpoints.finish() == [said]
    assert names(checkpoints.folder) == ["step-00000001"]
    checkpoints.save(3, state(3), PROGRESS)
    checkpoints.save(4, state(4), PROGRESS)
    assert checkpoints.poll() == [said.replace("step-00000002", "step-00000003")]
    assert checkpoints.finish() == []
    assert checkpoints.steps() == [1, 4]
    checkpoints.close()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_that_is_waited_for_raises_its_failure(tmp_path, refuse, asynchronous):
    refuse(FULL)
    checkpoints = make(tmp_path, asynchronous=asynchronous)
    with pytest.raises(StorageError, match="step-00000001: No space left on device; free some space"):
        checkpoints.save(1, state(1), PROGRESS, wait=True)
    assert checkpoints.poll() == []
    assert len(checkpoints.finish()) == 1
    checkpoints.save(1, state(1), PROGRESS, wait=True)
    assert checkpoints.finish() == []


def test_what_is_no_fault_of_the_storage_ends_the_run(tmp_path, refuse):
    refuse(RuntimeError("a peer has left"))
    checkpoints = make(tmp_path, asynchronous=True)
    checkpoints.save(1, state(1), PROGRESS)
    with pytest.raises(RuntimeError, match="a peer has left"):
        checkpoints.finish()
    assert names(checkpoints.folder) == []


def test_closing_logs_what_nobody_was_told(tmp_path, refuse, caplog):
    for error, said in (
        (FULL, "no checkpoint was saved: "),
        (RuntimeError("a peer has left"), "the checkpoint under way was lost: a peer has left"),
    ):
        refuse(error)
        checkpoints = make(tmp_path, asynchronous=True)
        checkpoints.save(1, state(1), PROGRESS)
        caplog.clear()
        checkpoints.close()
        (record,) = caplog.records
        assert (record.levelno, said in record.message) == (logging.WARNING, True)
        checkpoints.close()
        assert len(caplog.records) == 1


def test_closing_waits_and_says_nothing_of_what_is_well(tmp_path, caplog):
    checkpoints = make(tmp_path, asynchronous=True)
    checkpoints.save(1, state(1), PROGRESS)
    checkpoints.close()
    assert (checkpoints.steps(), caplog.records) == ([1], [])


def test_an_interrupt_while_waiting_gives_the_save_up(tmp_path, gate, monkeypatch):
    checkpoints = make(tmp_path, asynchronous=True)
    checkpoints.save(1, state(1), PROGRESS)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Background, "take", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.finish()
    gate.set()
    checkpoints.close()


def test_buffers_are_used_again():
    staging = Staging()
    first = staging.copy({"a": torch.ones(3, 2), "b": torch.zeros(2)})
    again = staging.copy({"a": torch.full((3, 2), 2.0), "b": torch.zeros(4), "c": torch.arange(3)})
    assert again["a"] is first["a"]
    assert torch.equal(again["a"], torch.full((3, 2), 2.0))
    assert (again["b"].shape, again["c"].tolist()) == ((4,), [0, 1, 2])
    assert staging.copy({"b": torch.zeros(4, dtype=torch.float64)})["b"].dtype == torch.float64
    # What is no longer saved is no longer held.
    assert staging.copy({"a": torch.ones(3, 2)})["a"] is not first["a"]


def test_views_are_copied_without_what_they_are_views_of():
    whole = torch.arange(12.0).view(3, 4)
    copied = Staging().copy({"column": whole[:, 1]})["column"]
    assert copied.tolist() == [1, 5, 9]
    assert copied.untyped_storage().nbytes() == 12


@pytest.mark.gpu
def test_tensors_of_a_gpu_are_copied_into_pinned_memory():
    staging, tensor = Staging(), torch.arange(1 << 20, device="cuda", dtype=torch.float32)
    copied = staging.copy({"a": tensor})["a"]
    assert copied.is_pinned()
    assert torch.equal(copied, tensor.cpu())
    assert staging.copy({"a": tensor * 2})["a"] is copied
    assert torch.equal(copied, tensor.cpu() * 2)


def test_what_the_loss_of_a_process_explains_is_not_told_before_it(tmp_path, refuse, caplog):
    refuse(RuntimeError("a peer has left"))
    checkpoints = make(tmp_path, asynchronous=True)
    checkpoints.save(1, state(1), PROGRESS)
    with pytest.raises(WorkerLost), contextlib.closing(checkpoints):
        raise WorkerLost("rank 1 is gone")
    assert caplog.records == []
