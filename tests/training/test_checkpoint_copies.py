"""Copies of checkpoints on another storage, and a run that goes on from them."""

import errno
import re
import shutil
import uuid

import fsspec
import pytest
from checkpoint_parts import PROGRESS, assert_equal, files, flip, make, names, state

from maskwright.core.errors import CheckpointError, ConfigError, Interrupted, OutOfReachError, StorageError
from maskwright.corpus.remote import Retry
from maskwright.training.checkpoint_config import CheckpointConfig
from maskwright.training.checkpoints import Checkpoints, check_address, refuse_used_address
from maskwright.training.signals import stop_on_signals


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
    """A storage far away that fails in its own way at some call, always or some times."""

    def __init__(self, honest, name, error, times=10**9):
        self.honest, self.name, self.error, self.times = honest, name, error, times

    def __getattr__(self, name):
        if name == self.name and self.times:
            self.times -= 1
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
    with pytest.raises(StorageError, match=r"copies.*: the storage refuses it \(Forbidden\)"):
        checkpoints.load_newest()


@pytest.fixture
def pauses(monkeypatch):
    """Seconds between attempts, which take no time here."""
    made = []

    def hasty(seconds):
        return Retry(attempts=4 if seconds else 1, error=OutOfReachError, sleep=made.append)

    monkeypatch.setattr("maskwright.training.checkpoints.copies.patient_retry", hasty)
    return made


@pytest.mark.parametrize("call", ["glob", "cat_file", "get_file"])
def test_a_storage_that_is_away_is_asked_again(tmp_path, call, pauses):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.folder)
    copies = checkpoints._uploads.copies
    honest = copies._files
    copies._files = Broken(honest, call, ConnectionError("the cable"), times=3)
    assert checkpoints.load_newest().step == 1
    assert pauses == [1.0, 2.0, 4.0]
    shutil.rmtree(checkpoints.folder)
    copies._files = Broken(honest, call, ConnectionError("the cable"))
    with pytest.raises(
        OutOfReachError, match=r"copies.*: cannot be read \(the cable\), tried 4 times"
    ) as found:
        checkpoints.load_newest()
    assert found.value.exit_code == 1


def test_who_has_checkpoints_does_not_wait_for_a_storage(tmp_path, caplog, pauses, monkeypatch):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    monkeypatch.setattr(type(checkpoints._uploads.copies._files), "ls", refuse)
    address, folder = str(tmp_path / "copies"), checkpoints.folder
    check_address(address, folder, other_run, 60.0)
    said = "copies: cannot be read (the cable), tried 1 time; check the address"
    assert [said in message for message in caplog.messages] == [True]
    assert caplog.messages[0].endswith("; whether it holds checkpoints of another run is not known")
    assert pauses == []
    with pytest.raises(OutOfReachError, match="tried 4 times"):
        check_address(address, tmp_path / "elsewhere", other_run, 60.0)
    assert pauses == [1.0, 2.0, 4.0]


def refuse(self, *arguments, **options):
    raise ConnectionError("the cable")


def test_files_that_are_here_are_not_fetched_again(tmp_path, pauses):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    whole = files(save(checkpoints, 2))
    save(checkpoints, 1)  # another one that was begun, and is not wanted any more
    shutil.rmtree(checkpoints.folder)
    copies = checkpoints._uploads.copies
    honest, got = copies._files, []
    (checkpoints.folder / ".fetched-step-00000001").mkdir(parents=True)

    class Counted(Broken):
        def get_file(self, source, target, **options):
            got.append(source.rpartition("/")[2])
            if len(got) == 2:
                raise PermissionError(13, "Forbidden")
            self.honest.get_file(source, target, **options)

    copies._files = Counted(honest, "none", None)
    with pytest.raises(StorageError):
        checkpoints.load_newest()
    assert names(checkpoints.folder) == [".fetched-step-00000002"]
    begun = checkpoints.folder / ".fetched-step-00000002"
    (begun / got[1]).write_bytes(b"half")  # what a kill leaves
    assert checkpoints.load_newest().step == 2
    first, second = "__0_0.distcp", ".metadata"
    assert got == [first, second, second]
    assert names(checkpoints.folder) == ["step-00000002"]
    assert files(checkpoints.path(2)) == whole


def test_what_was_fetched_of_another_checkpoint_of_the_same_step_is_not_kept(tmp_path):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1, seed=5)
    begun = checkpoints.folder / ".fetched-step-00000001"
    shutil.move(checkpoints.path(1), begun)
    save(checkpoints, 1, seed=6)
    assert not begun.exists()  # a save has no use for it
    shutil.move(checkpoints.path(1), begun)
    (begun / "manifest.json").write_bytes(b"{}")
    template = state(0)
    assert checkpoints.load_newest(template).step == 1
    assert_equal(template, state(6))


def test_a_signal_ends_fetching_and_keeps_what_is_here(tmp_path, monkeypatch):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.folder)
    with stop_on_signals() as request:
        request.reason = "SIGTERM"
        with pytest.raises(Interrupted, match=r"while fetching step 1 from .*copies; what is here is kept"):
            checkpoints.load_newest()
    begun = checkpoints.folder / ".fetched-step-00000001"
    assert names(begun) == ["__0_0.distcp", "manifest.json"]
    assert checkpoints.load_newest().step == 1


def test_a_full_disk_here_is_not_taken_for_a_storage_that_is_away(tmp_path, pauses):
    checkpoints = make(tmp_path, upload=str(tmp_path / "copies"))
    save(checkpoints, 1)
    shutil.rmtree(checkpoints.folder)
    copies = checkpoints._uploads.copies
    copies._files = Broken(copies._files, "get_file", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match=r"step-00000001.*: No space left on device; free some space"):
        checkpoints.load_newest()
    assert pauses == []


def other_run(manifest):
    """As if the run had been begun with another learning rate."""
    return [] if manifest["config"] == "x: 2\n" else ["lr was 1, now 2"]


def make_other(folder, upload):
    config = CheckpointConfig(keep=2, asynchronous=False, every_steps=1, upload=upload)
    return Checkpoints(folder / "checkpoints", config, {"config": "x: 2\n"}, differs=other_run)


def test_an_address_of_another_run_is_refused(tmp_path, address):
    checkpoints = make(tmp_path / "one", upload=address)
    save(checkpoints, 3)
    whole = read(address, 3)
    other = make_other(tmp_path / "two", address)
    check_address(None, other.folder, other_run, 60.0)
    check_address(f"{address.rstrip('/')}-unused", other.folder, other_run, 60.0)
    said = (
        rf"^{re.escape(address.rstrip('/'))}: holds checkpoints of another run, the newest of step 3 "
        r"\(lr was 1, now 2\); give each run an address of its own in checkpoint\.upload, or add --force$"
    )
    with pytest.raises(ConfigError, match=said):
        check_address(address, other.folder, other_run, 60.0)
    # Nor is anything put there by a run that began before the other one copied something.
    path = save(other, 3)
    (told,) = other.poll()
    assert told.startswith("WARNING: the checkpoint of step 3 was saved, but not copied: ")
    assert re.search(said.lstrip("^"), told)
    assert read(address, 3) == whole
    assert path.is_dir()
    with pytest.raises(ConfigError, match="holds checkpoints of another run"):
        check_address(address, other.folder, other_run, 60.0)  # also where it has its own
    check_address(address, checkpoints.folder, lambda manifest: [], 60.0)


def test_a_copy_that_says_nothing_is_passed_over_for_the_one_before(tmp_path):
    address = str(tmp_path / "copies")
    checkpoints = make(tmp_path, upload=address)
    for step in (1, 2, 3):
        save(checkpoints, step)
    (tmp_path / "copies" / "step-00000003" / "manifest.json").unlink()
    (tmp_path / "copies" / "step-00000002" / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="of another run, the newest of step 1"):
        check_address(address, tmp_path / "elsewhere", other_run, 60.0)


def test_a_new_run_wants_an_unused_address(tmp_path, address):
    refuse_used_address(None)
    refuse_used_address(address)
    save(make(tmp_path, upload=address), 7)
    said = (
        r"copies: holds checkpoints, the newest of step 7, but this run is a new one; add --resume to go on"
    )
    with pytest.raises(ConfigError, match=said):
        refuse_used_address(address)


def test_an_address_of_no_known_kind_is_refused_at_once(tmp_path):
    with pytest.raises(StorageError, match=r"nosuch://x: cannot be reached \(.*\); check checkpoint\.upload"):
        make(tmp_path, upload="nosuch://x")
