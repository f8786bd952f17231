"""Copies of checkpoints on another storage, and a run that goes on from them."""

import shutil
import uuid

import fsspec
import pytest
from checkpoint_parts import PROGRESS, assert_equal, files, flip, make, names, state

from maskwright.core.errors import CheckpointError, StorageError


@pytest.fixture(params=["memory", "file", "folder"])
def address(request, tmp_path):
    """An empty place for copies."""
    if request.param == "memory":
        name = f"memory://{uuid.uuid4().hex}/copies"
        yield name
        fsspec.filesystem("memory").rm(name, recursive=True)
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path / 'copies'}/"


def read(address, step):
    """All files of a copy."""
    store, root = fsspec.core.url_to_fs(address.rstrip("/"))
    found = store.ls(f"{root}/step-{step:08d}", detail=False)
    return {path.rpartition("/")[2]: store.cat_file(path) for path in found}


def save(checkpoints, step, seed=None):
    """Save a checkpoint, and wait until it has been copied too."""
    path = checkpoints.save(step, state(step if seed is None else seed), PROGRESS)
    checkpoints.finish()
    checkpoints._uploads.wait()
    return path


def test_every_file_is_copied_and_nothing_is_removed_there(tmp_path, address):
    checkpoints = make(tmp_path, keep=1, upload=address, asynchronous=True)
    for step in (1, 2):
        path = save(checkpoints, step)
        assert (checkpoints.finish(), checkpoints.poll()) == ([], [])
        assert read(address, step) == files(path)
    assert checkpoints.steps() == [2]
    assert len(read(address, 1)) == 3


def test_a_run_without_checkpoints_goes_on_from_the_newest_copy(tmp_path, address):
    checkpoints = make(tmp_path, upload=address)
    assert checkpoints.load_newest() is None
    for step in (1, 2):
        save(checkpoints, step)
    whole = files(checkpoints.path(2))
    shutil.rmtree(checkpoints.folder)
    again = make(tmp_path, upload=address)
    template = state(0)
    found = again.load_newest(template)
    assert (found.step, found.progress) == (2, PROGRESS)
    assert_equal(template, state(2))
    assert names(again.folder) == ["step-00000002"]
    assert files(again.path(2)) == whole


def test_copies_are_taken_where_none_is_whole(tmp_path, address, caplog):
    checkpoints = make(tmp_path, upload=address)
    for step in (1, 2):
        flip(save(checkpoints, step) / "__0_0.distcp")
    assert checkpoints.load_newest().step == 2
    assert caplog.text.count("going back to the checkpoint before it") == 2
    assert make(tmp_path).load(2).step == 2


def test_copies_that_are_not_whole_are_passed_over(tmp_path, address, caplog):
    checkpoints = make(tmp_path, upload=address)
    for step in (1, 2, 3, 4, 5):
        save(checkpoints, step)
    shutil.rmtree(checkpoints.folder)
    store, root = fsspec.core.url_to_fs(address.rstrip("/"))
    store.rm_file(f"{root}/step-00000005/manifest.json")  # the copy was not finished
    store.rm_file(f"{root}/step-00000004/__0_0.distcp")
    store.pipe_file(f"{root}/step-00000003/.metadata", b"other")
    store.pipe_file(f"{root}/step-00000002/manifest.json", b"{}")
    assert checkpoints.load_newest().step == 1
    place = address.rstrip("/")
    told = [record.message for record in caplog.records]
    assert len(told) == 4
    assert told[0].startswith(f"{place}/step-00000004/__0_0.distcp: is missing; use an earlier checkpoint;")
    assert told[1].startswith(f"{place}/step-00000003/.metadata: has 5 bytes, the manifest says")
    assert told[2].startswith(f"{place}/step-00000002: has no readable manifest.json")
    assert told[3].endswith(f"checkpoints: no whole checkpoint; took step 1 from {place}")
    assert names(checkpoints.folder) == ["step-00000001"]
    shutil.rmtree(checkpoints.folder)
    store.rm_file(f"{root}/step-00000001/__0_0.distcp")
    with pytest.raises(CheckpointError, match="none of its 4 checkpoints is whole; start a new run"):
        checkpoints.load_newest()
    assert names(checkpoints.folder) == []


def test_a_copy_of_another_format_is_refused(tmp_path, monkeypatch):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    monkeypatch.setattr("maskwright.training.checkpoints.manifest.FORMAT_VERSION", 1)
    save(checkpoints, 1)
    monkeypatch.undo()
    shutil.rmtree(checkpoints.folder)
    with pytest.raises(CheckpointError, match="copies/step-00000001: has format version 1, this Maskwright"):
        checkpoints.load_newest()


class Broken:
    """A storage far away that fails in its own way at some call."""

    def __init__(self, honest, name, error):
        self.honest, self.name, self.error = honest, name, error

    def __getattr__(self, name):
        if name == self.name:
            raise self.error
        return getattr(self.honest, name)


@pytest.mark.parametrize("call", ["makedirs", "put_file"])
def test_a_failure_is_a_message_and_the_checkpoint_stays(tmp_path, call):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    copies = checkpoints._uploads.copies
    copies._files = Broken(copies._files, call, LookupError("no such bucket"))
    save(checkpoints, 1)
    said = (
        "WARNING: the checkpoint of step 1 was saved, but not copied: "
        f"{tmp_path / 'copies'}: no such bucket; check the address and the access"
    )
    assert checkpoints.poll() == [said]
    assert checkpoints.finish() == []
    assert checkpoints.load_newest().step == 1
    copies._files = copies._files.honest
    save(checkpoints, 2)
    assert (checkpoints.poll(), copies.steps()) == ([], [2])


def test_a_copy_is_unfinished_while_it_is_written_again(tmp_path):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    copies = checkpoints._uploads.copies
    copies._files = Broken(copies._files, "put_file", ConnectionError())
    save(checkpoints, 1, seed=2)
    assert "ConnectionError()" in checkpoints.poll()[0]
    assert copies.steps() == []


@pytest.mark.parametrize("call", ["glob", "get_file"])
def test_copies_that_cannot_be_reached_are_not_taken_for_none(tmp_path, call):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.folder)
    copies = checkpoints._uploads.copies
    copies._files = Broken(copies._files, call, PermissionError(13, "Forbidden"))
    with pytest.raises(StorageError, match=r"copies: .*Forbidden; check the address and the access"):
        checkpoints.load_newest()


def test_an_address_of_no_known_kind_is_refused_at_once(tmp_path):
    with pytest.raises(StorageError, match=r"nosuch://x: cannot be reached \(.*\); check checkpoint\.upload"):
        make(tmp_path, upload="nosuch://x")
