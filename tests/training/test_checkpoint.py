"""Checkpoints: whole or absent, the newest whole one is taken, and a refusal leaves the others."""

import contextlib
import errno
import json
import logging
import re
import shutil

import pytest
import torch

from maskwright.core.errors import CheckpointError, StorageError
from maskwright.training.checkpoint import Checkpoints

PROGRESS = {"stream": {"consumed": 96, "seed": 0}, "seconds": 1.25, "tokens": 7, "evaluation": {"loss": 0.1}}


def state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "model": {
            "a.weight": torch.randn(40, 30, generator=generator),
            "b": torch.randn(7, generator=generator),
        },
        "optimizer": {
            "a.weight": {"step": torch.tensor(3.0), "exp_avg": torch.randn(40, 30, generator=generator)},
            "b": {"step": torch.tensor(3.0), "exp_avg": torch.zeros(7).bfloat16()},
        },
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[name])
        else:
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name])


def make(folder, keep=2):
    return Checkpoints(folder / "checkpoints", keep, {"config": "x: 1\n"})


def files(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)


def test_what_goes_in_comes_out(tmp_path):
    checkpoints = make(tmp_path)
    assert checkpoints.load_newest() is None
    path = checkpoints.save(12, state(), PROGRESS)
    assert path.name == "step-00000012"
    found = checkpoints.load_newest()
    assert (found.step, found.progress) == (12, PROGRESS)
    assert_equal(found.tensors, state())
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["config"] == "x: 1\n"
    assert {entry["path"] for entry in manifest["files"]} == {file.name for file in path.iterdir()} - {
        "manifest.json"
    }


def test_the_newest_stay(tmp_path):
    checkpoints = make(tmp_path)
    for step in (1, 2, 3, 100_000_000):
        checkpoints.save(step, state(), PROGRESS)
    assert checkpoints.steps() == [3, 100_000_000]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000003", "step-100000000"]


def test_a_step_saved_again_replaces_itself(tmp_path):
    checkpoints = make(tmp_path)
    checkpoints.save(4, state(0), PROGRESS)
    checkpoints.save(4, state(1), PROGRESS)
    assert_equal(checkpoints.load_newest().tensors, state(1))


def test_every_damaged_file_is_passed_over_with_a_warning(tmp_path, caplog):
    checkpoints = make(tmp_path)
    checkpoints.save(1, state(1), PROGRESS)
    newest = checkpoints.save(2, state(2), PROGRESS)
    whole = files(newest)
    assert len(whole) == 3
    for name, data in whole.items():
        caplog.clear()
        flip(newest / name)
        with caplog.at_level(logging.WARNING, "maskwright"):
            found = checkpoints.load_newest()
        assert found.step == 1, name
        assert_equal(found.tensors, state(1))
        assert str(newest) in caplog.text
        assert "going back to the checkpoint before it" in caplog.text
        (newest / name).write_bytes(data)
    assert checkpoints.load_newest().step == 2


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_missing_and_truncated_files_are_passed_over(tmp_path, damage):
    checkpoints = make(tmp_path)
    checkpoints.save(1, state(1), PROGRESS)
    newest = checkpoints.save(2, state(2), PROGRESS)
    for name, data in files(newest).items():
        if damage == "missing":
            (newest / name).unlink()
        else:
            (newest / name).write_bytes(data[:-1] if damage == "truncated" else b"")
        # Without its last line end the manifest still says everything.
        expected = 2 if (name, damage) == ("manifest.json", "truncated") else 1
        assert checkpoints.load_newest().step == expected, name
        (newest / name).write_bytes(data)


def test_any_changed_value_of_the_manifest_is_noticed(tmp_path):
    checkpoints = make(tmp_path)
    path = checkpoints.save(5, state(), PROGRESS) / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"consumed": 96', '"consumed": 97'))
    said = r"manifest\.json: was changed after it was written \(fingerprint [0-9a-f]{32}\); use an earlier"
    with pytest.raises(CheckpointError, match=said):
        checkpoints.load(5)
    path.write_text(text)
    assert checkpoints.load(5).progress == PROGRESS


def test_what_a_damaged_checkpoint_is_told(tmp_path):
    checkpoints = make(tmp_path)
    path = checkpoints.save(5, state(), PROGRESS)
    flip(path / "__0_0.distcp")
    with pytest.raises(
        CheckpointError, match=r"__0_0\.distcp: is damaged \(SHA-256 .*; use an earlier checkpoint"
    ):
        checkpoints.load(5)
    (path / "manifest.json").write_text("[1]")
    with pytest.raises(
        CheckpointError, match=r"has no readable manifest\.json .*; use an earlier checkpoint"
    ):
        checkpoints.load(5)
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no readable manifest\.json .*no such file"):
        checkpoints.load(5)


def test_a_checkpoint_of_another_format(tmp_path, monkeypatch):
    checkpoints = make(tmp_path)
    monkeypatch.setattr("maskwright.training.checkpoint.FORMAT_VERSION", 9)
    checkpoints.save(5, state(), PROGRESS)
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError, match="has format version 9, this Maskwright reads 1; use the version"
    ):
        checkpoints.load(5)


def test_none_is_whole(tmp_path):
    checkpoints = make(tmp_path)
    for step in (1, 2):
        flip(checkpoints.save(step, state(), PROGRESS) / ".metadata")
    with pytest.raises(
        CheckpointError, match=r"checkpoints: none of its 2 checkpoints is whole; start a new run"
    ):
        checkpoints.load_newest()


def test_unfinished_folders_are_ignored_and_cleared(tmp_path):
    checkpoints = make(tmp_path)
    whole = checkpoints.save(1, state(), PROGRESS)
    shutil.copytree(whole, checkpoints.folder / ".partial-step-00000002")
    (checkpoints.folder / "step-garbage").mkdir()
    assert checkpoints.steps() == [1]
    assert checkpoints.load_newest().step == 1
    checkpoints.save(3, state(), PROGRESS)
    assert not list(checkpoints.folder.glob(".partial-*"))


def test_a_damaged_later_one_does_not_push_out_what_is_saved_after_going_back(tmp_path):
    checkpoints = make(tmp_path, keep=1)
    make(tmp_path).save(50, state(), PROGRESS)
    flip(make(tmp_path).save(100, state(), PROGRESS) / ".metadata")
    assert checkpoints.load_newest().step == 50
    checkpoints.save(75, state(7), PROGRESS)
    assert checkpoints.steps() == [75, 100]
    assert_equal(checkpoints.load_newest().tensors, state(7))


class TestRefusals:
    """The storage refuses while a checkpoint is written."""

    @pytest.fixture
    def checkpoints(self, tmp_path):
        found = make(tmp_path)
        found.save(1, state(1), PROGRESS)
        return found

    def expect_only_the_first(self, checkpoints):
        assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
        assert_equal(checkpoints.load_newest().tensors, state(1))

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
    def test_while_tensors_are_written(self, checkpoints, number, monkeypatch):
        from torch.distributed.checkpoint.filesystem import FileSystem

        honest = FileSystem.create_stream

        class Full:
            def __init__(self, stream):
                self.stream = stream

            def __getattr__(self, name):
                return getattr(self.stream, name)

            def write(self, data):
                raise OSError(number, "refused")

        @contextlib.contextmanager
        def create_stream(self, path, mode):
            with honest(self, path, mode) as stream:
                yield Full(stream)

        monkeypatch.setattr(FileSystem, "create_stream", create_stream)
        with pytest.raises(StorageError, match=re.escape(str(checkpoints.path(2)))):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)

    def test_while_files_are_flushed(self, checkpoints, monkeypatch):
        def refuse(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("maskwright.core.files.os.fsync", refuse)
        with pytest.raises(StorageError, match=r"step-00000002: No space left on device; free some space"):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)

    def test_a_fault_that_is_not_the_storage(self, checkpoints):
        with pytest.raises(BaseException, match="pickle") as caught:
            checkpoints.save(2, {"model": {"a": lambda: None}}, PROGRESS)
        assert not isinstance(caught.value, StorageError)
        self.expect_only_the_first(checkpoints)

    def test_a_second_interrupt_comes_out_as_itself(self, checkpoints, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("torch.save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)
