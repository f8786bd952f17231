"""Checkpoints: whole or absent, the newest whole one is taken, and a refusal leaves the others."""

import contextlib
import errno
import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_parts import PROGRESS, assert_equal, files, flip, make, names, state

from maskwright.core.errors import CheckpointError, StorageError


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


@pytest.mark.parametrize("version", [1, 9])
def test_a_checkpoint_of_another_format_is_refused_and_not_passed_over(tmp_path, monkeypatch, version):
    checkpoints = make(tmp_path)
    checkpoints.save(4, state(), PROGRESS)
    monkeypatch.setattr("maskwright.training.checkpoints.manifest.FORMAT_VERSION", version)
    checkpoints.save(5, state(), PROGRESS)
    monkeypatch.undo()
    said = (
        rf"step-00000005: has format version {version}, this Maskwright reads 2; use the version that wrote "
        "it, or start a new run"
    )
    for load in (lambda: checkpoints.load(5), checkpoints.load_newest):
        with pytest.raises(CheckpointError, match=said):
            load()


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


class TestTemplates:
    """Reading into tensors that are there."""

    def test_they_are_overwritten_in_place(self, tmp_path):
        checkpoints = make(tmp_path)
        checkpoints.save(1, state(1), PROGRESS)
        template = state(2)
        found = checkpoints.load_newest(template)
        assert (
            found.tensors["optimizer"]["a.weight"]["exp_avg"] is template["optimizer"]["a.weight"]["exp_avg"]
        )
        assert_equal(template, state(1))

    def test_parameters_may_be_given(self, tmp_path):
        checkpoints = make(tmp_path)
        checkpoints.save(1, {"model": {"a": torch.ones(3)}}, PROGRESS)
        parameter = torch.nn.Parameter(torch.zeros(3))
        checkpoints.load_newest({"model": {"a": parameter}, "optimizer": {}})
        assert parameter.requires_grad
        assert torch.equal(parameter, torch.ones(3))

    def test_numbers_come_back_as_what_they_were(self, tmp_path):
        saved = {
            "step": 2**40 + 1,
            "rate": 0.1,
            "on": True,
            "count": torch.tensor(7),
            "fresh": torch.tensor(5.0),
        }
        checkpoints = make(tmp_path)
        checkpoints.save(1, {"model": {}, "optimizer": {"a": saved}}, PROGRESS)
        template = {"step": 0, "rate": 0.0, "on": False, "count": torch.tensor(0), "fresh": 0}
        found = checkpoints.load_newest({"model": {}, "optimizer": {"a": template}}).tensors
        assert found["model"] == {}
        assert found["optimizer"]["a"] == saved | {"fresh": 5}
        kinds = {name: type(value) for name, value in found["optimizer"]["a"].items()}
        assert kinds == {name: type(value) for name, value in template.items()}

    @pytest.mark.parametrize(
        ("name", "change", "said"),
        [
            (
                "a.weight",
                None,
                r"model/a\.weight of the checkpoint is not in the run; resume with the model and",
            ),
            (
                "a.weight",
                torch.zeros(30, 40),
                r"model/a\.weight is of shape \(40, 30\) in the checkpoint, expected",
            ),
            (
                "c",
                torch.zeros(2),
                r"model/c is missing in the checkpoint, expected \(2,\); resume with the model",
            ),
        ],
    )
    def test_another_model_is_refused_and_nothing_is_passed_over(self, tmp_path, name, change, said):
        checkpoints = make(tmp_path)
        checkpoints.save(1, state(1), PROGRESS)
        template, before = state(2), state(2)
        for tree in (template, before):
            tree["model"].pop(name, None)
            if change is not None:
                tree["model"][name] = change
        with pytest.raises(CheckpointError, match=said):
            checkpoints.load_newest(template)
        assert_equal(template, before)

    def test_the_state_of_loss_scaling_may_come_and_go(self, tmp_path):
        checkpoints = make(tmp_path)
        checkpoints.save(1, state(1), PROGRESS)
        found = checkpoints.load_newest({**state(2), "scaler": {"scale": torch.tensor(8)}})
        assert found.tensors["scaler"]["scale"] == 8
        checkpoints.save(2, {**state(1), "scaler": {"scale": torch.tensor(4)}}, PROGRESS)
        assert "scaler" not in checkpoints.load_newest(state(2)).tensors

    def test_a_device_that_does_not_read_is_a_damaged_checkpoint(self, tmp_path, monkeypatch, caplog):
        checkpoints = make(tmp_path)
        checkpoints.save(1, state(1), PROGRESS)
        newest = checkpoints.save(2, state(2), PROGRESS)
        honest = Path.open

        def refuse(path, *arguments, **options):
            if path.parent == newest and path.suffix == ".distcp":
                raise OSError(errno.EIO, "Input/output error")
            return honest(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)
        assert checkpoints.load_newest(state()).step == 1
        assert "__0_0.distcp: cannot be read (Input/output error); use an earlier checkpoint" in caplog.text
        # The file was whole when it was checked, and is not when it is read.
        caplog.clear()
        monkeypatch.setattr("maskwright.training.checkpoints.store.check_file", lambda *_: None)
        assert checkpoints.load_newest(state()).step == 1
        assert "step-00000002: cannot be read (Input/output error); check the storage" in caplog.text


def test_bytes_on_disk_are_those_of_weights_and_optimiser(tmp_path):
    """Twelve layers of a narrow encoder; wider ones have still less besides their tensors."""
    shapes = [(256, 256), (256,), (256, 256), (256,), (256,), (256,)]
    named = {f"{layer}.{number}": shape for layer in range(12) for number, shape in enumerate(shapes)}
    weights = {name: torch.randn(shape) for name, shape in named.items()}
    tensors = {
        "model": weights,
        "optimizer": {
            name: {"step": torch.tensor(1.0), "exp_avg": weight, "exp_avg_sq": weight}
            for name, weight in weights.items()
        },
    }
    path = make(tmp_path).save(1, tensors, PROGRESS)
    expected = 3 * sum(weight.nbytes for weight in weights.values())
    assert expected < sum(file.stat().st_size for file in path.iterdir()) < 1.03 * expected


class TestReplacing:
    """A step that is saved again."""

    def test_what_was_put_aside_by_a_crash_is_found(self, tmp_path):
        checkpoints = make(tmp_path)
        path = checkpoints.save(1, state(1), PROGRESS)
        path.rename(path.with_name(".replaced-step-00000001"))
        assert checkpoints.load_newest().step == 1
        assert names(checkpoints.folder) == ["step-00000001"]

    def test_what_was_put_aside_goes_where_the_new_one_is_there(self, tmp_path):
        checkpoints = make(tmp_path)
        path = checkpoints.save(1, state(1), PROGRESS)
        shutil.copytree(path, path.with_name(".replaced-step-00000001"))
        assert checkpoints.load_newest().step == 1
        assert names(checkpoints.folder) == ["step-00000001"]

    def test_a_refusal_gives_it_its_place_back(self, tmp_path, monkeypatch):
        checkpoints = make(tmp_path, keep=1)
        checkpoints.save(1, state(1), PROGRESS)

        def refuse(temporary, target):
            raise StorageError(f"{target}: No space left on device")

        monkeypatch.setattr("maskwright.training.checkpoints.folders.publish_folder", refuse)
        with pytest.raises(StorageError, match="No space left on device"):
            checkpoints.save(1, state(2), PROGRESS)
        assert_equal(checkpoints.load(1).tensors, state(1))
        assert names(checkpoints.folder) == ["step-00000001"]


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

    def test_with_a_fault_that_has_no_remedy_of_its_own(self, checkpoints, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ESTALE, "Stale file handle")

        monkeypatch.setattr("maskwright.training.checkpoints.store.write_metadata", refuse)
        with pytest.raises(
            StorageError, match="step-00000002: Stale file handle; check the storage, then run"
        ):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)

    def test_files_that_vanish_while_it_is_saved(self, checkpoints, monkeypatch):
        import maskwright.training.checkpoints.store as module

        honest = module.write_metadata

        def vanish(folder, *arguments):
            (folder / "__0_0.distcp").unlink()
            honest(folder, *arguments)

        monkeypatch.setattr(module, "write_metadata", vanish)
        with pytest.raises(
            StorageError, match=r"__0_0\.distcp: is missing; all ranks must see the same folder"
        ):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)

    def test_a_file_that_is_shorter_than_what_was_written(self, checkpoints, monkeypatch):
        import maskwright.training.checkpoints.tensors as module

        honest = module._writer

        class Forgetful:
            """A device that took everything and kept less."""

            def __init__(self, folder):
                self.folder, self.writer = folder, honest(folder)

            def write_data(self, *arguments):
                found = self.writer.write_data(*arguments)
                (self.folder / "__0_0.distcp").write_bytes(b"less")
                return found

        monkeypatch.setattr(module, "_writer", Forgetful)
        with pytest.raises(
            StorageError, match="step-00000002: Input/output error; the device reported"
        ) as caught:
            checkpoints.save(2, state(2), PROGRESS)
        assert re.search(r"4 of \d+ bytes were written", str(caught.value.__cause__))
        self.expect_only_the_first(checkpoints)

    def test_while_files_are_flushed(self, checkpoints, monkeypatch):
        def refuse(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("maskwright.core.files.os.fsync", refuse)
        with pytest.raises(StorageError, match=r"step-00000002: No space left on device; free some space"):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)

    def test_a_fault_that_is_not_the_storage(self, checkpoints):
        with pytest.raises(AssertionError, match="model/a is a function; a checkpoint holds tensors and"):
            checkpoints.save(2, {"model": {"a": lambda: None}}, PROGRESS)
        self.expect_only_the_first(checkpoints)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_second_interrupt_comes_out_as_itself(self, checkpoints, monkeypatch, wrapped):
        def interrupt(*_):
            if wrapped:
                raise RuntimeError("a writer failed") from KeyboardInterrupt()
            raise KeyboardInterrupt

        monkeypatch.setattr("torch.save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, state(2), PROGRESS)
        self.expect_only_the_first(checkpoints)
