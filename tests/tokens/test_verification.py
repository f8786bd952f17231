"""Checksums of large data, compared behind a run."""

import logging
import random
import shutil

import pytest

import maskwright
import tiny_world
from maskwright.core.errors import ShardError
from maskwright.tokens import shards
from maskwright.tokens.shards import open_split
from maskwright.tokens.verification import DataCheck


@pytest.fixture
def large(monkeypatch):
    """No data is small."""
    monkeypatch.setattr(shards, "VERIFY_BYTES", 0)


@pytest.fixture
def folder(data_folder, tmp_path):
    return shutil.copytree(data_folder, tmp_path / "data")


def flip(path):
    data = bytearray(path.read_bytes())
    data[random.Random(3).randrange(len(data))] ^= 16
    path.write_bytes(data)


def look(folder, rank=0, size=1):
    """A check of all splits that has come to its end."""
    check = DataCheck([open_split(folder, split) for split in ("train", "validation")], rank, size)
    check.start()
    if check._thread.ident is not None:
        check._thread.join(60)
    return check


def test_what_was_compared_at_the_opening_is_not_compared_again(folder, caplog):
    check = look(folder)
    assert check._mine == []
    check.raise_damage()
    check.close()
    assert caplog.messages == []


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("kind", ["tokens", "documents"])
def test_a_flipped_bit_is_found_by_the_process_that_has_the_file(folder, large, split, kind):
    path = sorted((folder / split).glob(f"*.{kind}"))[-1]
    flip(path)
    found = []
    for rank in range(3):
        check = look(folder, rank, 3)
        try:
            check.raise_damage()
        except ShardError as error:
            found.append(str(error))
        check.close()
    (said,) = found
    assert said.startswith(f"{path}: is damaged (SHA-256 ")
    assert "the manifest says" in said


def test_every_file_has_one_process(folder, large):
    shares = [DataCheck([open_split(folder, "train")], rank, 4)._mine for rank in range(4)]
    names = [entry.path for share in shares for _, entry in share]
    assert sorted(names) == sorted(entry.path for entry in open_split(folder, "train").unverified())
    sizes = [sum(entry.num_bytes for _, entry in share) for share in shares]
    assert max(sizes) - min(sizes) <= max(entry.num_bytes for share in shares for _, entry in share)


def test_what_is_whole_is_said_once(folder, large, caplog):
    with caplog.at_level(logging.INFO):
        for rank in (0, 1):
            look(folder, rank, 2).raise_damage()
        look(folder).raise_damage()
    assert caplog.messages == [
        "0.0 GB of data are compared with their checksums behind the training, 2 processes sharing them",
        "the data is what its manifest says (this share)",
        "0.0 GB of data are compared with their checksums behind the training",
        "the data is what its manifest says",
    ]


def test_closing_ends_it_at_once(folder, large, caplog):
    check = DataCheck([open_split(folder, "train")])
    check._closed.set()
    with caplog.at_level(logging.INFO):
        check.start()
        check.close()
    assert not check._thread.is_alive()
    assert caplog.messages[1:] == []  # it does not say that all is well
    check.raise_damage()
    DataCheck([open_split(folder, "train")]).close()  # never started


def test_a_file_that_cannot_be_read_is_damage(folder, large, monkeypatch):
    def refuse(path, between=None):
        raise OSError(5, "Input/output error")

    check = DataCheck([open_split(folder, "train")])
    monkeypatch.setattr("maskwright.core.inventory.sha256_file", refuse)
    check.start()
    check._thread.join(60)
    with pytest.raises(ShardError, match=r"cannot be read \(Input/output error\); "):
        check.raise_damage()


def test_a_run_on_damaged_data_ends_and_names_the_file(folder, large, tmp_path, monkeypatch):
    """However early the file is found: the run waits here until it is."""
    path = sorted((folder / "train").glob("*.tokens"))[-1]
    flip(path)
    start = DataCheck.start

    def start_and_wait(self):
        start(self)
        self._thread.join(60)

    monkeypatch.setattr(DataCheck, "start", start_and_wait)
    values = {**tiny_world.PRETRAIN, "data": str(folder)}
    with pytest.raises(ShardError, match=rf"{path.name}: is damaged"):
        maskwright.pretrain(values, output=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
