"""Data folders opened by address: on this machine, in memory, and where something is wrong."""

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import maskwright
import tiny_world
from maskwright.core.errors import DataError, ShardError
from maskwright.corpus.remote import Retry
from maskwright.tokens.cache_config import CacheConfig
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.remote_data import ObjectReader, open_data


class WaveringFiles(MemoryFileSystem):
    """Files in memory that fail as they are told to."""

    protocol = "wavering"
    cachable = False
    troubles: list[Exception] = []  # noqa: RUF012 - one list for all
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("wavering://", "memory://"))

    def _open(self, path, mode="rb", **settings):
        if mode == "rb" and self.troubles:
            raise self.troubles.pop(0)
        return super()._open(path, mode, **settings)


@pytest.fixture
def storage(data_folder):
    fsspec.register_implementation("wavering", WaveringFiles, clobber=True)
    filesystem = WaveringFiles()
    for path in data_folder.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"/bucket/data/{path.relative_to(data_folder)}", path.read_bytes())
    WaveringFiles.troubles.clear()
    yield filesystem
    WaveringFiles.store.clear()
    WaveringFiles.pseudo_dirs[:] = [""]


def test_a_path_is_taken_as_it_is(data_folder):
    place = open_data(str(data_folder), CacheConfig())
    assert (place.path, place.files) == (data_folder, None)


def test_an_address_gives_the_same_data_and_tokenizer(storage, data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = open_data("wavering://bucket/data/", CacheConfig())
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
    address = "wavering://bucket/data/manifest.json"
    whole = storage.cat_file("/bucket/data/manifest.json")
    WaveringFiles.troubles += [OSError("the cable"), OSError("the cable")]
    assert reader.read_range(address, 5, 20) == whole[5:25]
    assert pauses == [1.0, 2.0]
    WaveringFiles.troubles += [PermissionError("no rights")]
    with pytest.raises(
        DataError, match=r"manifest\.json: the storage refuses it \(no rights\); check the path"
    ):
        reader.read(address)
    WaveringFiles.troubles += [PermissionError("no rights")]
    with pytest.raises(DataError, match="the storage refuses it"):
        reader.read(address, may_miss=True)
    assert pauses == [1.0, 2.0]


def test_what_is_missing(storage, tmp_path):
    reader = ObjectReader(Retry(sleep=lambda seconds: None))
    gone = "wavering://bucket/gone"
    assert reader.read(gone, may_miss=True) is None
    for read in (lambda: reader.read(gone), lambda: reader.read_range(gone, 0, 5)):
        with pytest.raises(DataError, match=r"gone: no such file or folder; check the path"):
            read()
    size = storage.size("/bucket/data/manifest.json")
    with pytest.raises(DataError, match=r"\(the transfer ended before the end of the file\), tried 6 times"):
        reader.read_range("wavering://bucket/data/manifest.json", size, 1)
    with pytest.raises(ShardError, match=r"wavering://bucket: has no manifest\.json, so no finished data"):
        open_data("wavering://bucket", CacheConfig(folder=str(tmp_path)))


def test_a_run_from_an_address_is_the_run_from_the_folder(storage, pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = {**tiny_world.PRETRAIN, "data": "wavering://bucket/data"}
    maskwright.pretrain(values, output=tmp_path / "run")
    weights = [folder / "export" / "model.safetensors" for folder in (tmp_path / "run", pretrained)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    # What was fetched is kept, so a second run asks for the small files alone.
    read = []
    monkeypatch.setattr(ObjectReader, "read_range", lambda self, *where: read.append(where))
    maskwright.pretrain({**values, "steps": 8}, output=tmp_path / "again")
    assert read == []
