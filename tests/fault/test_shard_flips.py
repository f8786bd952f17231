"""Two hundred flipped bits in a data folder: each is found when the folder is opened, and named."""

import logging
import random
import shutil

import numpy as np
import pytest

import maskwright
import tiny_world
from maskwright.core.errors import ShardError
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream

pytestmark = pytest.mark.fault
NUM_FLIPS = 200


@pytest.fixture(scope="module")
def folder(corpus_file, tmp_path_factory):
    """Every kind of file that shards have: tokens, ends of documents and sentences, words; and an index."""
    folder = tmp_path_factory.mktemp("flips") / "data"
    values = tiny_world.prepare_values(corpus_file)
    maskwright.prepare({**values, "sentences": True, "words": {"segmenter": "spaces"}}, output=folder)
    stream_of(folder)
    return folder


def stream_of(folder):
    return SampleStream(
        open_split(folder, "train", verify=True), 32, 0, 2, 1, format=FormatConfig(name="full-sentences")
    )


def flip(path, chance):
    """Flip one bit of a file; what gives it back."""
    whole = path.read_bytes()
    place, bit = chance.randrange(len(whole)), chance.randrange(8)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    return whole


def open_all(folder):
    for split in ("train", "validation"):
        open_split(folder, split, verify=True)


def described_files(folder):
    manifest = load_manifest(folder)
    shards = (shard for split in manifest.splits.values() for shard in split.shards)
    entries = [manifest.token_counts, *(entry for shard in shards for entry in shard.files)]
    return [folder / entry.path for entry in entries if entry.num_bytes]


def test_every_flip_in_shards_and_sidecars_is_found(folder):
    chance, paths = random.Random(20), described_files(folder)
    assert {path.suffix for path in paths} == {".tokens", ".documents", ".sentences", ".words", ".bin"}
    for _ in range(NUM_FLIPS):
        path = chance.choice(paths)
        whole = flip(path, chance)
        with pytest.raises(ShardError, match=rf"{path.name}: is damaged \(SHA-256 .* the manifest says"):
            open_all(folder)
        path.write_bytes(whole)
    open_all(folder)


def test_every_flip_in_the_manifest_is_found(folder):
    chance, path = random.Random(21), folder / "manifest.json"
    for _ in range(NUM_FLIPS):
        whole = flip(path, chance)
        with pytest.raises(ShardError, match=r"(?s)manifest\.json.*prepare the data again"):
            open_split(folder, "train")
        path.write_bytes(whole)


def test_a_flip_in_the_index_of_samples_makes_it_anew(folder, tmp_path, caplog):
    chance, copy = random.Random(22), shutil.copytree(folder, tmp_path / "data")
    expected = stream_of(folder).batch(0, 50).ids
    paths = [path for path in sorted(copy.glob("samples/*/*")) if path.stat().st_size]
    assert len(paths) > 1
    for _ in range(20):
        flip(chance.choice(paths), chance)
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(stream_of(copy).batch(0, 50).ids, expected)
        assert "the index of samples is made again" in caplog.text
        caplog.clear()


def test_checksums_wait_where_data_is_large_or_nobody_asks(folder, monkeypatch):
    path = described_files(folder)[1]
    whole = flip(path, random.Random(23))
    open_split(folder, "train", verify=False)
    with pytest.raises(ShardError, match="is damaged"):
        open_split(folder, "train")
    monkeypatch.setattr("maskwright.tokens.shards.VERIFY_BYTES", 0)
    open_split(folder, "train")
    with pytest.raises(ShardError, match="is damaged"):
        open_split(folder, "train", verify=True)
    path.write_bytes(whole)
