"""Shards on object storage: the same tokens, a bound that holds, and damage that is named."""

import errno
import logging
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sentence_data import ALL, BOS, library, same_batches
from shard_helpers import EOS, VOCAB, data_of, publish

from maskwright.core.errors import DataError, ShardError, StorageError
from maskwright.tokens import shard_cache
from maskwright.tokens.cache_config import CacheConfig
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.lookahead import Lookahead
from maskwright.tokens.remote_folder import open_data_folder
from maskwright.tokens.shard_cache import BlockKey, ShardCache
from maskwright.tokens.shards import EncodedDocuments, open_split, write_shard
from maskwright.tokens.stream import SampleStream

ADDRESS, BLOCK = "far://bucket/data", 4096


class Objects:
    """The files of a folder as objects; notes what is read, and can be told what to do wrong."""

    def __init__(self, folder):
        self.folder, self.ranges, self.damaged, self.short = Path(folder), [], {}, {}
        self.closed = False

    def _path(self, address):
        assert address.startswith(ADDRESS + "/")
        return self.folder / address.removeprefix(ADDRESS + "/")

    def read(self, address, *, may_miss=False):
        path = self._path(address)
        if path.is_file():
            return self._spoilt(path, path.read_bytes())
        if may_miss:
            return None
        raise DataError(f"{address}: no such file or folder; check the path")

    def read_range(self, address, start, num_bytes):
        path = self._path(address)
        self.ranges.append((path.name, start, num_bytes))
        if not path.is_file():
            raise DataError(f"{address}: no such file or folder; check the path")
        data = path.read_bytes()[: self.short.get(path.name)]
        return self._spoilt(path, data[start : start + num_bytes])

    def close(self):
        self.closed = True

    def _spoilt(self, path, data):
        """One bit of a file comes wrong as often as was asked for."""
        if not self.damaged.get(path.name):
            return data
        self.damaged[path.name] -= 1
        return bytes([data[0] ^ 1]) + data[1:]


def documents(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 290, rng.integers(30, 300)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two sources in three shards of some tens of thousands of bytes."""
    folder = tmp_path_factory.mktemp("far")
    data_of(folder, {"web": [documents(90), documents(70, 1)], "wiki": [documents(80, 2)]}, {"wiki": 2.0})
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def far(original):
    return Objects(original)


def config(tmp_path, **values):
    return CacheConfig(folder=str(tmp_path / "cache"), block_bytes=BLOCK, threads=1, **values)


def opened(objects, config, split="train"):
    return open_split(open_data_folder(ADDRESS, config, objects), split)


def kept_bytes(folder):
    return sum(path.stat().st_size for path in folder.glob("cache/blocks/*/*/*") if path.name.isdecimal())


def everything(data):
    return data.tokens(0, data.num_tokens)


def settle(data):
    """Wait until the one thread has fetched what it was told to."""
    data.place.files._pool.submit(int).result()


def test_tokens_are_those_of_the_local_folder_and_fetched_once(far, original, tmp_path):
    local, data = open_split(original, "train"), opened(far, config(tmp_path))
    assert far.ranges == []
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = int(rng.integers(local.num_tokens - 300))
        assert np.array_equal(data.tokens(start, 300), local.tokens(start, 300))
    for number in range(0, local.num_documents, 17):
        assert np.array_equal(data.document(number), local.document(number))
    assert np.array_equal(everything(data), everything(local))
    fetched = [one for one in far.ranges if one[0].endswith(".tokens")]
    assert len(set(fetched)) == len(fetched)
    assert sum(size for _, _, size in fetched) == sum(shard.tokens.num_bytes for shard in local.shards)
    far.ranges.clear()
    again = opened(far, config(tmp_path))
    assert np.array_equal(everything(again), everything(local))
    assert np.array_equal(again.document(3), local.document(3))
    assert far.ranges == []


@pytest.mark.parametrize("name", ["windows", *ALL])
def test_streams_are_those_of_the_local_folder(name, tmp_path):
    folder = tmp_path / "far"
    _, local = library(folder)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    objects = Objects(folder)
    streams = [
        SampleStream(data, 40, BOS, EOS, 1, format=FormatConfig(name=name))
        for data in (local, opened(objects, config(tmp_path)))
    ]
    for first in (0, 33, 100_000_007):
        streams[1].expect([(first, 5), (first + 5, 8)])
        settle(streams[1].data)
        objects.ranges.clear()
        assert same_batches(*(stream.batch(first, 13) for stream in streams))
        assert not [one for one in objects.ranges if one[0].endswith(".tokens")]
    streams[0].expect([(0, 5)])  # nothing to do
    told = len(streams[1].data.place.files._expected)
    objects.ranges.clear()
    streams[1].data.expect(np.array([[0]]), np.array([[9]]), keep=False)
    assert len(streams[1].data.place.files._expected) == told


def test_stored_words_are_read_through_the_cache(tmp_path):
    folder, rng = tmp_path / "far", np.random.default_rng(0)
    counts = np.full(300, 400, np.int64)
    ids, begins = rng.integers(5, 290, 120_000).astype(np.uint32), rng.random(120_000) < 0.5
    batch = EncodedDocuments(ids, counts, word_begins=begins)
    shards = [
        write_shard(folder, "train", n, [batch], vocab_size=VOCAB, eos_id=EOS, words=True) for n in (0, 1)
    ]
    publish(folder, {"train": [written.shard for written in shards]})
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    objects = Objects(folder)
    local, data = open_split(folder, "train"), opened(objects, config(tmp_path))
    border = data.shards[0].num_tokens
    places = np.array([0, 7, border - 3, border, 2 * border - 50])
    data.expect(places, np.full(5, 50))
    settle(data)
    objects.ranges.clear()
    for place in places.tolist():
        assert np.array_equal(data.words(place, 50), local.words(place, 50))
        assert np.array_equal(data.tokens(place, 50), local.tokens(place, 50))
    assert objects.ranges == []


def test_a_full_cache_keeps_its_bound_and_the_blocks_used_last(far, original, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        data = opened(far, config(tmp_path, most_bytes=5 * BLOCK))
    assert re.search(
        r"far://bucket/data: the training split has [\d,]+ bytes of tokens and the cache holds 20,480, so "
        r"most samples fetch a block of 4,096 bytes, and checksums of shards may never be compared; raise",
        caplog.text,
    )
    local = open_split(original, "train")
    rng = np.random.default_rng(0)
    for _ in range(100):
        start = int(rng.integers(local.num_tokens - 40))
        assert np.array_equal(data.tokens(start, 40), local.tokens(start, 40))
        assert kept_bytes(tmp_path) <= 5 * BLOCK
    data.tokens(0, 1)
    far.ranges.clear()
    data.tokens(10, 1)
    assert far.ranges == []


def test_the_least_recently_used_blocks_go_first(tmp_path, monkeypatch):
    clock = iter(range(1000, 2000))
    utime = shard_cache.os.utime
    monkeypatch.setattr(shard_cache.os, "utime", lambda place, *_: utime(place, (tick := next(clock), tick)))
    cache = ShardCache(tmp_path / "cache", 10 * (BLOCK + 16), BLOCK)
    keys = [BlockKey("ab" * 32, number) for number in range(12)]

    def add(key, keep=()):
        cache.write(key, bytes(BLOCK), keep)
        assert cache.touch(key)

    for key in keys[:10]:
        add(key)
    assert cache.read(keys[0], 5, 9) == bytes(4)
    assert cache.touch(keys[1])
    add(keys[10], keep={keys[2]})
    there = cache.numbers("ab" * 32)
    assert {0, 1, 2, 10} <= there
    assert 3 not in there
    assert cache.read(keys[3], 0, 1) is None
    assert not cache.touch(keys[3])


def test_room_that_is_needed_is_not_given_away(tmp_path):
    cache = ShardCache(tmp_path, 2 * (BLOCK + 16), BLOCK)
    keys = [BlockKey("ab" * 32, number) for number in range(3)]
    for key in keys[:2]:
        cache.write(key, bytes(BLOCK))
    said = f"{tmp_path}: cache.most_bytes is 8224, and 8224 of them hold blocks that the coming steps need; "
    with pytest.raises(StorageError, match=re.escape(said)):
        cache.write(keys[2], bytes(BLOCK), set(keys))
    assert cache.numbers("ab" * 32) == {0, 1}
    assert not list((tmp_path / "incoming").iterdir())


def test_the_sum_survives_what_kills_leave_behind(tmp_path):
    cache = ShardCache(tmp_path, 4 * (BLOCK + 16), BLOCK)
    keys = [BlockKey("ab" * 32, number) for number in range(6)]
    cache.write(keys[0], bytes(BLOCK))
    (tmp_path / "used").write_text(str(10 * BLOCK))  # a process died between sum and rename, often
    stale, young = tmp_path / "incoming" / "stale", tmp_path / "incoming" / "young"
    for path in (stale, young):
        path.write_bytes(b"half")
    shard_cache.os.utime(stale, (0, 0))
    cache.write(keys[1], bytes(BLOCK))
    assert cache.numbers("ab" * 32) == {0, 1}
    assert not stale.exists()
    assert young.exists()
    (tmp_path / "used").unlink()
    for key in keys[2:]:
        cache.write(key, bytes(BLOCK))
    assert kept_bytes(tmp_path.parent / tmp_path.name) <= 4 * (BLOCK + 16)
    assert len(cache.numbers("ab" * 32)) <= 4


def test_a_cache_too_small_is_refused(far, tmp_path):
    said = (
        r"cache: cache.most_bytes is 4100, too few for one block of 4096; raise it or lower cache.block_bytes"
    )
    with pytest.raises(StorageError, match=said):
        opened(far, config(tmp_path, most_bytes=4100))
    data = opened(far, config(tmp_path, most_bytes=6 * BLOCK, steps_ahead=1))
    places = np.arange(0, data.num_tokens, 3000)
    said = r"cache.most_bytes is 24576, but the coming 1 steps read blocks of \d+ bytes; raise it, or lower "
    with pytest.raises(StorageError, match=said):
        data.expect(places, np.ones_like(places))


def test_blocks_damaged_on_this_disk_are_fetched_again(far, original, tmp_path, caplog):
    data = opened(far, config(tmp_path))
    data.tokens(0, 10)
    (path,) = (path for path in tmp_path.glob("cache/blocks/*/*/0"))
    for spoil in (lambda whole: whole[:50] + b"!" + whole[51:], lambda whole: whole[:100], lambda whole: b""):
        path.write_bytes(spoil(path.read_bytes()))
        far.ranges.clear()
        again = opened(far, config(tmp_path))  # another process, which has not read it yet
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(again.tokens(0, 10), open_split(original, "train").tokens(0, 10))
        assert len(far.ranges) == 1
        assert f"{path}: was damaged on this disk; it is fetched again" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("verify", ["when-whole", "before-use"])
def test_a_shard_that_comes_damaged_is_fetched_once_more_then_refused(
    far, tmp_path, caplog, verify, original
):
    name = "shard-00001.tokens"
    far.damaged[name] = 1
    data = opened(far, config(tmp_path / "once", verify=verify))
    with caplog.at_level(logging.WARNING):
        everything(data)
        found = everything(data)
    assert np.array_equal(found, everything(open_split(original, "train")))
    assert f"{ADDRESS}/train/{name}: came damaged (SHA-256 " in caplog.text
    far.damaged[name] = 10**6
    data = opened(far, config(tmp_path / "always", verify=verify))
    said = (
        rf"{name}: is damaged \(SHA-256 .*, the manifest says .*\), also when fetched once more; prepare the"
    )
    for _ in range(2):
        with pytest.raises(ShardError, match=said):
            everything(data)


def test_before_use_nothing_is_used_unchecked(far, tmp_path):
    data = opened(far, config(tmp_path, verify="before-use", most_bytes=5 * BLOCK))
    data.tokens(0, 1)
    count = -(-data.shards[0].tokens.num_bytes // BLOCK)
    # Once from end to end; what had to go meanwhile comes again.
    assert {start for _, start, _ in far.ranges} == {number * BLOCK for number in range(count)}
    assert len(far.ranges) == count + 1
    # Every later block is compared on arrival, though the cache never holds all of them at once.
    far.damaged["shard-00000.tokens"] = 1
    far.ranges.clear()
    data.tokens(BLOCK // 2, 1)
    assert far.ranges == [("shard-00000.tokens", BLOCK, BLOCK)] * 2
    again = opened(far, config(tmp_path, verify="before-use", most_bytes=5 * BLOCK))
    far.damaged["shard-00000.tokens"] = 2
    with pytest.raises(
        ShardError, match=r"bytes 8192 to 12288 came damaged, also when fetched once more; prepare"
    ):
        again.tokens(BLOCK, 1)


def test_small_files_and_files_that_are_searched_are_checked_on_arrival(far, tmp_path, caplog):
    for name, touch in (
        ("token_counts.bin", lambda data: None),
        ("shard-00002.documents", lambda data: data.document(data.num_documents - 1)),
    ):
        far.damaged[name] = 1
        touch(opened(far, config(tmp_path / name / "once")))
        far.damaged[name] = 2
        with pytest.raises(ShardError, match=rf"{name}: is damaged \(SHA-256 .*also when fetched once more"):
            touch(opened(far, config(tmp_path / name / "twice")))
    far.damaged["manifest.json"] = 1
    with pytest.raises(ShardError, match=r"manifest\.json: is not valid JSON"):
        opened(far, config(tmp_path))


def test_the_checksum_of_everything_on_request(far, tmp_path):
    place = open_data_folder(ADDRESS, config(tmp_path), far)
    open_split(place, "train", verify=True)
    far.damaged["shard-00002.documents"] = 10**6
    place = open_data_folder(ADDRESS, config(tmp_path / "other"), far)
    with pytest.raises(ShardError, match=r"shard-00002\.documents: is damaged"):
        open_split(place, "train", verify=True)


def test_what_is_missing_or_ends_early_is_named(far, original, tmp_path):
    with pytest.raises(ShardError, match=r"has no split 'test'; it has train"):
        opened(far, config(tmp_path), "test")
    far.short["shard-00000.tokens"] = 5000
    size = (original / "train" / "shard-00000.tokens").stat().st_size
    with pytest.raises(
        ShardError, match=rf"00000\.tokens: ends at byte 5000, the manifest says {size}; prep"
    ):
        everything(opened(far, config(tmp_path)))
    far.folder = tmp_path
    with pytest.raises(
        ShardError, match=r"^far://bucket/data: has no manifest\.json, so no finished data; che"
    ):
        opened(far, config(tmp_path))


def test_optional_files_that_are_refused_are_done_without(far, tmp_path, monkeypatch, caplog):
    read = far.read

    def refusing(address, *, may_miss=False):
        if address.endswith("audit.json"):
            raise DataError(f"{address}: the storage refuses it")
        return read(address, may_miss=may_miss)

    monkeypatch.setattr(far, "read", refusing)
    with caplog.at_level(logging.WARNING):
        assert opened(far, config(tmp_path)).num_documents == 240
    assert f"{ADDRESS}/audit.json: the storage refuses it; going on without it" in caplog.text


def test_a_missing_shard_is_met_when_it_is_read_not_when_it_is_expected(far, original, tmp_path):
    data = opened(far, config(tmp_path))
    far.folder = tmp_path  # somebody removes the data meanwhile
    data.expect(np.array([0]), np.array([10]))
    settle(data)
    with pytest.raises(DataError, match=r"shard-00000\.tokens: no such file or folder; check the path"):
        data.tokens(0, 10)


def test_a_full_disk_slows_reading_and_does_not_end_it(far, original, tmp_path, monkeypatch, caplog):
    data = opened(far, config(tmp_path))
    data.tokens(0, 1)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(everything(data), everything(open_split(original, "train")))
    assert caplog.text.count("No space left on device; free some space") == 1
    assert "blocks are read from the storage each time until there is room" in caplog.text


def test_blocks_are_fetched_ahead_and_closing_gives_up(far, tmp_path):
    data = opened(far, config(tmp_path))
    data.expect(np.array([0, 5000]), np.array([10, 10]))
    settle(data)
    assert len(far.ranges) == 2
    data.tokens(0, 10), data.tokens(5000, 10)
    assert len(far.ranges) == 2
    data.place.close()
    assert far.closed
    data.expect(np.array([9000]), np.array([10]))
    assert len(far.ranges) == 2
    open_split(far.folder, "train").place.close()  # nothing to do


def read_far(folder, cache, seed):
    """One process of several with one small cache; returns whether every token was right."""
    local = open_split(Path(folder), "train")
    settings = CacheConfig(folder=cache, block_bytes=BLOCK, most_bytes=8 * BLOCK, threads=2, steps_ahead=1)
    data = opened(Objects(folder), settings)
    rng = np.random.default_rng(seed)
    right, most = True, 0
    for _ in range(150):
        start = int(rng.integers(local.num_tokens - 100))
        data.expect(np.array([start]), np.array([100]))
        right &= np.array_equal(data.tokens(start, 100), local.tokens(start, 100))
        most = max(most, int((Path(cache) / "used").read_text() or 0))
    data.place.close()
    return right, most


def test_processes_share_a_cache(original, tmp_path):
    cache = tmp_path / "cache"
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(read_far, [str(original)] * 3, [str(cache)] * 3, range(3)))
    assert all(right for right, _ in found)
    assert max(most for _, most in found) <= 8 * BLOCK
    assert 0 < kept_bytes(tmp_path) <= 8 * BLOCK
    assert not list((cache / "incoming").iterdir())


def test_each_coming_step_is_told_of_once():
    told = []
    ahead = Lookahead(3, lambda first: ([(first, 8)], first + 8), told.extend)
    for consumed in (0, 8, 16):
        ahead.at(consumed)
    assert told == [(first, 8) for first in range(0, 40, 8)]
    told.clear()
    ahead.at(8_000_000)  # a resume
    ahead.at(8_000_008)
    assert told == [(8_000_000 + 8 * step, 8) for step in range(4)]
    told.clear()
    Lookahead(0, lambda first: ([], first), told.extend).at(0)
    assert told == []
