"""Files are whole or absent, and every refusal of the storage names path and remedy."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from maskwright.core import files
from maskwright.core.errors import ConfigError, DataError, OutputExistsError, StorageError
from maskwright.core.files import (
    atomic_open,
    prepare_output,
    publish_folder,
    read_bytes,
    read_json,
    storage_errors,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_half(path, error: BaseException) -> None:
    with atomic_open(path) as file:
        file.write(b"half")
        raise error


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def test_a_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "one é\n")
    write_text(str(path), "two\n")
    assert path.read_bytes() == b"two\n"
    assert names(tmp_path / "a" / "b") == ["x.txt"]


def test_nothing_appears_under_the_name_before_the_block_ends(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_open(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_block_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


@pytest.mark.fault
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from maskwright.core.files import atomic_open\n"
        "with atomic_open(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert result.returncode == -9
    assert path.read_bytes() == b"old"
    assert len([name for name in names(tmp_path) if files.TEMPORARY_MARK in name]) == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "No space left on device; free some space or choose another folder"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EIO, "the device reported a fault"),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_refusing_storage_leaves_nothing(tmp_path, monkeypatch, number, expected, function):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, refuse)
    monkeypatch.setattr(Path, "replace", refuse) if function == "replace" else None
    path = tmp_path / "x.bin"
    with pytest.raises(StorageError, match=expected) as caught:
        write_bytes(path, b"data")
    assert str(caught.value).startswith(f"{path}: ")
    monkeypatch.undo()
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_for_real():
    with (
        pytest.raises(StorageError, match=r"full\.bin: No space left on device; free some space"),
        storage_errors("full.bin"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a" / "x", tmp_path / "a" / "b" / "x"):
        with pytest.raises(StorageError, match=r"a part of the path is a file|is in the way"):
            write_text(path, "x")


def test_a_folder_under_the_name(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match=r"x: Is a directory; a folder has this name"):
        write_text(tmp_path / "x", "x")
    assert names(tmp_path) == ["x"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(StorageError, match="choose a shorter name"):
        write_text(tmp_path / ("x" * 300), "x")


def test_an_unrelated_refusal_is_blamed_on_its_own_file(tmp_path):
    with pytest.raises(StorageError) as caught, atomic_open(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied", "source.txt")
    assert str(caught.value) == "source.txt: Permission denied; check the permissions"


def test_other_system_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_open(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "source.txt")
    with pytest.raises(OSError, match="without a number"), storage_errors("x"):
        raise OSError("without a number")


def test_remote_writes_are_whole_or_absent(memory):
    address = "memory://bucket/folder/x.txt"
    write_text(address, "one")
    write_text(address, "two")
    assert read_bytes(address) == b"two"
    with pytest.raises(KeyError):
        write_half(address, KeyError("x"))
    assert read_bytes(address) == b"two"
    assert memory.find("/bucket") == ["/bucket/folder/x.txt"]


def test_an_address_that_nothing_can_reach():
    with pytest.raises(StorageError, match=r"nowhere://a/x: cannot be reached \(.*\); check the address"):
        write_text("nowhere://a/x", "")
    with pytest.raises(DataError, match=r"nowhere://a/x: cannot be read \(.*\); check the path"):
        read_bytes("nowhere://a/x")


def test_folders_that_cannot_be_flushed_are_accepted(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "fault")))
    with pytest.raises(OSError, match="fault"):
        sync_folder(tmp_path)


def test_publish_renames_a_whole_folder(tmp_path):
    temporary = tmp_path / "x.partial"
    (temporary / "inner").mkdir(parents=True)
    (temporary / "inner" / "a").write_text("a")
    publish_folder(temporary, tmp_path / "x")
    assert names(tmp_path) == ["x", "x/inner", "x/inner/a"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_publish_does_not_replace(tmp_path, kind):
    temporary, target = tmp_path / "t", tmp_path / "x"
    temporary.mkdir()
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    with pytest.raises(StorageError, match=r"x: .*(choose another|remove it)"):
        publish_folder(temporary, target)
    assert temporary.is_dir()


def test_read_bytes_refusals(tmp_path):
    with pytest.raises(DataError, match="none: no such file; check the path"):
        read_bytes(tmp_path / "none")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); check the path"):
        read_bytes(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(embedded null byte\)"):
        read_bytes("a\0b")
    with pytest.raises(DataError, match="no such file"):
        read_bytes("memory://none/at/all")


def test_json_goes_round(tmp_path):
    path = tmp_path / "x.json"
    value = {"b": [1, 2.5, None, True], "a": "é中"}
    write_json(path, value)
    assert read_json(path) == value
    assert list(read_json(path)) == ["b", "a"]
    assert "é中" in path.read_text(encoding="utf-8")
    assert path.read_bytes().endswith(b"}\n")


def test_json_with_half_a_surrogate_pair(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"name": "a\udcff"})
    assert read_json(path) == {"name": "a\udcff"}


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000, b'{"a": 1}x', b'"\xc3("'],
    ids=["empty", "open", "binary", "deep", "digits", "trailing", "utf8"],
)
def test_what_is_not_json(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.json: is not valid JSON \("):
        read_json(path)


def test_bad_json_is_located(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(DataError, match="line 2 column 6"):
        read_json(path)


@pytest.mark.parametrize("resume", [False, True])
def test_a_fresh_output_folder(tmp_path, resume):
    folder = tmp_path / "runs" / "a"
    prepare_output(folder, resume=resume, overwrite=False)
    prepare_output(folder, resume=False, overwrite=False)  # empty is as good as absent
    assert folder.is_dir()


def test_an_occupied_output_folder(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(OutputExistsError, match="is not empty; add --resume to go on, --overwrite to start"):
        prepare_output(tmp_path, resume=False, overwrite=False)
    prepare_output(tmp_path, resume=True, overwrite=False)
    assert names(tmp_path) == ["config.yaml"]


def test_resume_and_overwrite_together_destroy_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match="--resume and --overwrite contradict each other; give only one"):
        prepare_output(tmp_path, resume=True, overwrite=True)
    assert names(tmp_path) == ["config.yaml"]


def test_overwrite_empties_only_what_is_ours(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "x").write_text("x")
    with pytest.raises(OutputExistsError, match=r"has no config\.yaml, so it may not be ours to overwrite"):
        prepare_output(folder, resume=False, overwrite=True)
    assert names(folder) == ["checkpoints", "checkpoints/x"]
    (folder / "config.yaml").write_text("")
    prepare_output(folder, resume=False, overwrite=True)
    assert names(tmp_path) == ["run"]


def test_overwrite_does_not_follow_links(tmp_path):
    real, outside = tmp_path / "disk", tmp_path / "outside"
    real.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("x")
    (real / "config.yaml").write_text("")
    (real / "link").symlink_to(outside)
    (tmp_path / "run").symlink_to(real)
    prepare_output(tmp_path / "run", resume=False, overwrite=True)
    assert names(real) == []
    assert (tmp_path / "run").is_symlink()
    assert (outside / "precious").exists()


@pytest.mark.fault
def test_an_interrupted_overwrite_can_be_repeated(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "zzz").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        prepare_output(tmp_path, resume=False, overwrite=True)
    monkeypatch.undo()
    prepare_output(tmp_path, resume=False, overwrite=True)
    assert names(tmp_path) == []


def test_an_output_that_is_a_file_or_below_one(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputExistsError, match="x: is a file, expected a folder; choose another output"):
        prepare_output(tmp_path / "x", resume=False, overwrite=True)
    with pytest.raises(StorageError, match="a part of the path is a file"):
        prepare_output(tmp_path / "x" / "y", resume=False, overwrite=False)
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="something with this name is in the way"):
        prepare_output(tmp_path / "loose", resume=False, overwrite=False)


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StorageError, match="Permission denied; check the permissions"):
        prepare_output(tmp_path, resume=False, overwrite=False)


def test_written_json_is_plain_utf8_json(tmp_path):
    write_json(tmp_path / "x", {"a": [1]})
    assert json.loads((tmp_path / "x").read_text(encoding="utf-8")) == {"a": [1]}
