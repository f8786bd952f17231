"""Data folders opened by address: on this machine, in memory, and where something is wrong."""

from dataclasses import replace

import numpy as np
import pytest

import maskwright
import tiny_world
from flaky_files import FlakyFiles, flaky_storage
from maskwright.core.errors import DataError, OutOfReachError, ShardError
from maskwright.corpus.remote import Retry
from maskwright.tokens.cache_config import CacheConfig
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training import remote_data
from maskwright.training.remote_data import ObjectReader, open_data, patient_retry
from maskwright.training.signals import stop_on_signals


@pytest.fixture
def storage(data_folder):
    files = [path for path in data_folder.rglob("*") if path.is_file()]
    with flaky_storage(
        {f"/bucket/data/{path.relative_to(data_folder)}": path.read_bytes() for path in files}
    ) as filesystem:
        yield filesystem


def test_a_path_is_taken_as_it_is(data_folder):
    place = open_data(str(data_folder), CacheConfig())
    assert (place.path, place.files) == (data_folder, None)


def test_an_address_gives_the_same_data_and_tokenizer(storage, data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = open_data("flaky://bucket/data/", CacheConfig())
    assert place.path.is_relative_to(tmp_path / "maskwright" / "data")
    local = open_split(data_folder, "train")
    data = open_split(place, "train")
    assert data.manifest == local.manifest
    assert np.array_equal(data.tokens(0, data.num_tokens), local.tokens(0, local.num_tokens))
    assert np.array_equal(data.token_counts(), local.token_counts())
    fingerprints = {Tokenizer.load(folder / "tokenizer").fingerprint for folder in (place.path, data_folder)}
    assert fingerprints == {local.manifest.tokenizer.fingerprint}
    assert (place.path / "audit.json").read_bytes() == (data_folder / "audit.json").read_bytes()
    place.close()


def test_what_breaks_off_is_tried_again_and_what_is_refused_is_not(storage):
    pauses = []
    reader = ObjectReader(Retry(sleep=pauses.append))
    address = "flaky://bucket/data/manifest.json"
    whole = storage.cat_file("/bucket/data/manifest.json")
    FlakyFiles.troubles += [OSError("the cable"), OSError("the cable")]
    assert reader.read_range(address, 5, 20) == whole[5:25]
    assert pauses == [1.0, 2.0]
    FlakyFiles.troubles += [PermissionError("no rights")]
    with pytest.raises(
        DataError, match=r"manifest\.json: the storage refuses it \(no rights\); check the path"
    ):
        reader.read(address)
    FlakyFiles.troubles += [PermissionError("no rights")]
    with pytest.raises(DataError, match="the storage refuses it"):
        reader.read(address, may_miss=True)
    assert pauses == [1.0, 2.0]


class Clock:
    """Time that goes on while somebody waits."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def retry(self, patience_seconds, **settings):
        retry = patient_retry(patience_seconds, **settings)
        return replace(retry, sleep=self.sleep, clock=lambda: self.now)


def test_a_run_waits_for_its_storage_and_no_longer(storage):
    clock = Clock()
    reader = ObjectReader(clock.retry(100.0))
    address = "flaky://bucket/data/manifest.json"
    FlakyFiles.troubles += [OSError("the cable")] * 7
    assert reader.read_range(address, 5, 20) == storage.cat_file("/bucket/data/manifest.json")[5:25]
    assert clock.now == 1 + 2 + 4 + 8 + 16 + 30 + 30
    assert max(clock.slept) <= 1.0  # so that a signal is heard
    FlakyFiles.troubles += [OSError("the cable")] * 20
    with pytest.raises(
        OutOfReachError, match=r"manifest\.json at byte 5: cannot be read \(the cable\), tried 9"
    ):
        reader.read_range(address, 5, 20)
    assert clock.now == 91 + 100.0


@pytest.mark.parametrize("why", ["a signal", "closed"])
def test_nobody_waits_for_a_storage_who_shall_end(storage, why):
    clock, closed = Clock(), []
    reader = ObjectReader(clock.retry(1000.0, closed=lambda: bool(closed)))
    FlakyFiles.troubles += [OSError("the cable")] * 20
    with stop_on_signals() as request:

        def sleep(seconds):
            Clock.sleep(clock, seconds)
            if clock.now == 5:
                request.reason = "SIGTERM" if why == "a signal" else None
                closed.extend([why] * (why == "closed"))

        reader.retry = replace(reader.retry, sleep=sleep)
        with pytest.raises(OutOfReachError, match="tried 3 times"):
            reader.read("flaky://bucket/data/manifest.json")
    assert clock.now == 5


def test_an_object_that_is_too_short_is_not_waited_for(storage):
    clock = Clock()
    size = storage.size("/bucket/data/manifest.json")
    with pytest.raises(DataError, match=r"ended before the end of the file\), tried 6 times") as found:
        ObjectReader(clock.retry(10_000.0)).read_range("flaky://bucket/data/manifest.json", size, 1)
    assert found.value.exit_code == 2


def test_a_run_is_patient_with_its_data_and_its_reader_is_closed(storage, tmp_path):
    place = open_data("flaky://bucket/data", CacheConfig(folder=str(tmp_path)), patience_seconds=7.0)
    reader = place.files._reader
    assert (reader.retry.patience_seconds, reader.retry.error) == (7.0, OutOfReachError)
    assert not reader.retry.hurried()
    place.close()
    assert reader.retry.hurried()


def test_small_files_that_are_out_of_reach_are_not_taken_for_missing(storage, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(remote_data, "patient_retry", lambda seconds, closed: clock.retry(seconds))
    honest = ObjectReader.read

    def read(self, address, *, may_miss=False):
        if address.endswith("audit.json"):
            FlakyFiles.troubles += [OSError("the cable")] * 9
        return honest(self, address, may_miss=may_miss)

    monkeypatch.setattr(ObjectReader, "read", read)
    with pytest.raises(OutOfReachError, match=r"audit\.json"):
        open_data("flaky://bucket/data", CacheConfig(folder=str(tmp_path)), patience_seconds=20.0)


def test_what_is_missing(storage, tmp_path):
    reader = ObjectReader(Retry(sleep=lambda seconds: None))
    gone = "flaky://bucket/gone"
    assert reader.read(gone, may_miss=True) is None
    for read in (lambda: reader.read(gone), lambda: reader.read_range(gone, 0, 5)):
        with pytest.raises(DataError, match=r"gone: no such file or folder; check the path"):
            read()
    size = storage.size("/bucket/data/manifest.json")
    with pytest.raises(DataError, match=r"\(the transfer ended before the end of the file\), tried 6 times"):
        reader.read_range("flaky://bucket/data/manifest.json", size, 1)
    with pytest.raises(ShardError, match=r"flaky://bucket: has no manifest\.json, so no finished data"):
        open_data("flaky://bucket", CacheConfig(folder=str(tmp_path)))


def test_a_run_from_an_address_is_the_run_from_the_folder(storage, pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = {**tiny_world.PRETRAIN, "data": "flaky://bucket/data"}
    maskwright.pretrain(values, output=tmp_path / "run")
    weights = [folder / "export" / "model.safetensors" for folder in (tmp_path / "run", pretrained)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    # What was fetched is kept, so a second run asks for the small files alone.
    read = []
    monkeypatch.setattr(ObjectReader, "read_range", lambda self, *where: read.append(where))
    maskwright.pretrain({**values, "steps": 8}, output=tmp_path / "again")
    assert read == []
