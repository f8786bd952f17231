"""One shard at a time: streamed, whole or absent, with sources and sentences, whatever the cutting."""

import contextlib
import itertools
import random
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import EOS, VOCAB, data_of, encoded, publish

import tiny_world
from maskwright.core.errors import ShardError, StorageError
from maskwright.core.fingerprint import sha256_file
from maskwright.core.inventory import FileEntry
from maskwright.tokens import shards as shards_module
from maskwright.tokens.manifest import Shard, load_manifest
from maskwright.tokens.shards import TokenData, open_split, verify_folder, write_shard
from maskwright.tokens.split_statistics import split_statistics
from maskwright.tokens.stream import SampleStream

DOCUMENTS = st.lists(st.lists(st.integers(5, VOCAB - 1), max_size=12), max_size=12)
OPTIONS = {"vocab_size": VOCAB, "eos_id": EOS}


def cut(items, places):
    edges = [0, *sorted(place for place in places if place < len(items)), len(items)]
    return [items[low:high] for low, high in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=40)
@given(documents=DOCUMENTS, places=st.lists(st.integers(0, 12), max_size=3))
def test_batches_do_not_change_a_shard(documents, places):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = write_shard(folder, "train", 0, [encoded(documents)], **OPTIONS)
        before = tiny_world.files_of(folder)
        parts = (encoded(part) for part in cut(documents, places))
        again = write_shard(folder, "train", 0, parts, **OPTIONS)
        assert again.shard == whole.shard
        assert tiny_world.files_of(folder) == before
    expected = np.bincount([EOS, *itertools.chain(*documents)], minlength=VOCAB)
    expected[EOS] += len(documents) - 1
    assert np.array_equal(again.token_counts, expected)
    assert (again.shard.num_documents, again.shard.num_tokens) == (len(documents), expected.sum())


def test_pairs_of_an_encoder_will_do(tmp_path):
    batch = (np.array([5, 6, 7], np.uint32), np.array([1, 2], np.int64))
    shard = write_shard(tmp_path, "train", 123_456, iter([batch]), **OPTIONS, source="web").shard
    assert (shard.source, shard.tokens.path) == ("web", "train/shard-123456.tokens")
    assert (tmp_path / shard.tokens.path).read_bytes() == np.array([5, EOS, 6, 7, EOS], "<u2").tobytes()
    assert (tmp_path / shard.documents.path).read_bytes() == np.array([2, 5], "<u8").tobytes()
    for entry in shard.files:
        assert entry.sha256 == sha256_file(tmp_path / entry.path)


def test_a_shard_is_whole_or_absent(tmp_path):
    def failing():
        yield encoded([[5, 6]])
        raise RuntimeError("the reader died")

    with pytest.raises(RuntimeError, match="the reader died"):
        write_shard(tmp_path, "train", 0, failing(), **OPTIONS, sentences=False)
    assert not tiny_world.files_of(tmp_path)


def test_a_full_disk_names_the_file_that_did_not_fit(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(28, "No space left on device")

    from maskwright.tokens import shard_writing

    opener = shard_writing.atomic_open

    @contextlib.contextmanager
    def open_small(path):
        with opener(path) as file:
            yield Full(file) if str(path).endswith(".tokens") else file

    monkeypatch.setattr(shard_writing, "atomic_open", open_small)
    with pytest.raises(StorageError, match=r"shard-00000\.tokens: No space left on device; free some space"):
        write_shard(tmp_path, "train", 0, [encoded([[5]])], **OPTIONS)
    assert not tiny_world.files_of(tmp_path)


def test_memory_does_not_grow_with_the_shard(tmp_path):
    batch = encoded([list(range(5, 255))] * 40)

    def peak(number):
        tracemalloc.start()
        write_shard(tmp_path, "train", number, itertools.repeat(batch, number), **OPTIONS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(400) < 1.2 * peak(20)


def test_shards_without_documents(tmp_path):
    data = data_of(tmp_path, {"a": [[], [[5, 6]], []], "b": [[]]})
    assert (data.num_documents, data.num_tokens) == (1, 3)
    assert data.tokens(0, 3).tolist() == [5, 6, EOS]
    assert data.document(0).tolist() == [5, 6]
    assert verify_folder(tmp_path) == 9
    assert data.document_lengths(0, 10).tolist() == []


def test_sources_and_where_they_lie(tmp_path):
    data = data_of(tmp_path, {"web": [[[5, 6]], [[7]]], "wiki": [[[8]]]}, repeats={"wiki": 2.5})
    assert [(s.name, s.first, s.num_tokens, s.repeats) for s in data.sources] == [
        ("web", 0, 5, 1.0),
        ("wiki", 5, 2, 2.5),
    ]


@settings(deadline=None, max_examples=30)
@given(
    sources=st.lists(
        st.lists(st.lists(st.integers(5, 99), min_size=5, max_size=30), min_size=1, max_size=8),
        min_size=1,
        max_size=3,
    ),
    places=st.lists(st.integers(0, 8), max_size=4),
    repeats=st.lists(st.floats(0.3, 3), min_size=3, max_size=3),
)
def test_the_cutting_of_shards_changes_no_batch(sources, places, repeats):
    named = {f"source-{number}": documents for number, documents in enumerate(sources)}
    shares = dict(zip(named, repeats, strict=False))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = data_of(Path(one), {name: [documents] for name, documents in named.items()}, shares)
        parts = data_of(Path(other), {name: cut(items, places) for name, items in named.items()}, shares)
        batches = [SampleStream(data, 6, 0, EOS, 3).batch(5, 60) for data in (whole, parts)]
    for name in ("ids", "positions", "lengths", "samples", "epoch"):
        assert np.array_equal(getattr(batches[0], name), getattr(batches[1], name))
    row = list(itertools.chain(*([*document, EOS] for documents in sources for document in documents)))
    inside = batches[0].positions >= 0
    assert np.array_equal(batches[0].ids[inside], np.array(row)[batches[0].positions[inside]])


LENGTHS_OF_SENTENCES = st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=10)


@settings(deadline=None, max_examples=40)
@given(lengths=LENGTHS_OF_SENTENCES, places=st.lists(st.integers(0, 10), max_size=3))
def test_sentences_of_any_document(lengths, places):
    documents = [[7] * sum(sentences) for sentences in lengths]
    parts = zip(cut(documents, places), cut(lengths, places), strict=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = (encoded(*part) for part in parts)
        first = write_shard(folder, "train", 0, [encoded([[9] * 3], [[3]])], **OPTIONS, sentences=True)
        second = write_shard(folder, "train", 1, batches, **OPTIONS, sentences=True)
        publish(folder, {"train": [first.shard, second.shard]})
        data = open_split(folder, "train")
        assert data.sentences(0).tolist() == [3]
        for number, sentences in enumerate(lengths, 1):
            assert data.sentences(number).tolist() == list(itertools.accumulate(sentences))
        assert second.shard.num_sentences == sum(map(len, lengths))


def test_data_without_sentences(tmp_path):
    data = data_of(tmp_path, {"": [[[5, 6]]]})
    with pytest.raises(ShardError, match="was prepared without the ends of sentences; prepare it again with"):
        data.sentences(0)
    with pytest.raises(ShardError, match="document 1 does not exist; train has 1"):
        data.sentences(1)


def test_random_flipped_bits_in_shards_are_found(tmp_path):
    chance = random.Random(4)
    documents = [[chance.randrange(5, VOCAB) for _ in range(chance.randrange(9))] for _ in range(40)]
    sentences = [[len(document)] if document else [] for document in documents]
    batch = encoded(documents, sentences)
    shards = [write_shard(tmp_path, "train", n, [batch], **OPTIONS, sentences=True).shard for n in range(2)]
    publish(tmp_path, {"train": shards})
    data = open_split(tmp_path, "train")
    paths = [tmp_path / entry.path for shard in shards for entry in shard.files]
    for path in paths * 20:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=rf"{path.name}: is damaged"):
            data.verify()
        path.write_bytes(whole)
    data.verify()


class Looks(list):
    """Every file that was looked at through its entry."""

    def watch(self, monkeypatch):
        check = FileEntry.check

        def noted(entry, *arguments, **options):
            self.append(entry.path)
            return check(entry, *arguments, **options)

        monkeypatch.setattr(FileEntry, "check", noted)
        return self


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Two sources in forty shards of a billion tokens each: sparse files, which hold nothing but zeros."""
    monkeypatch.setattr(shards_module, "VERIFY_BYTES", 1000)
    each, documents, shards = 10**9, 1000, []
    (tmp_path / "train").mkdir()
    for number in range(40):
        entries = {}
        for kind, size in (("tokens", 2 * each), ("documents", 8 * documents)):
            path = f"train/shard-{number:05d}.{kind}"
            with (tmp_path / path).open("wb") as file:
                file.truncate(size)
            entries[kind] = FileEntry(path=path, num_bytes=size, sha256="0" * 64)
        source = "web" if number < 38 else "wiki"
        shards.append(Shard(num_tokens=each, num_documents=documents, source=source, **entries))
    publish(tmp_path, {"train": shards}, repeats={"wiki": 3.0})
    return tmp_path


def test_opening_looks_at_no_shard_and_a_sample_at_its_own(large, monkeypatch):
    looks = Looks().watch(monkeypatch)
    data = open_split(large, "train")
    samples = SampleStream(data, 514, 0, EOS, 1)
    assert looks == ["token_counts.bin"]
    for first in (0, 10**3, 10**9):
        del looks[:]
        assert samples.batch(first, 1).ids.shape == (514,)
        assert len(looks) <= 2
        assert all(path.endswith(".tokens") for path in looks)


def test_a_shard_of_another_length_is_refused_when_it_is_first_read(large):
    path = large / "train" / "shard-00007.tokens"
    with path.open("r+b") as file:
        file.truncate(2 * 10**9 - 2)
    data = open_split(large, "train")
    data.tokens(0, 10)
    with pytest.raises(
        ShardError, match=r"shard-00007\.tokens: has 1999999998 bytes, the manifest says 2000000000"
    ):
        data.tokens(7 * 10**9, 10)
    path.unlink()
    with pytest.raises(ShardError, match=r"shard-00007\.tokens: is missing"):
        TokenData(large, load_manifest(large), "train")


def test_statistics_of_a_split(tmp_path):
    data = data_of(tmp_path, {"web": [[[5] * 4, []], [[5] * 10]], "wiki": [[[5] * 2]]}, {"wiki": 5.0})
    found = split_statistics(data)
    assert found["sources"] == {
        "web": {"tokens": 17, "documents": 3, "repeats": 1.0, "share": 17 / 32},
        "wiki": {"tokens": 3, "documents": 1, "repeats": 5.0, "share": 15 / 32},
    }
    assert (found["tokens"], found["documents"], found["shards"], found["documents_measured"]) == (
        20,
        4,
        3,
        4,
    )
    quantiles = found["document_tokens"]
    assert list(quantiles) == ["0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1"]
    assert (quantiles["0"], quantiles["0.5"], quantiles["1"]) == (0, 2, 10)


def test_statistics_of_a_large_split_look_at_a_part(tmp_path):
    data = data_of(tmp_path, {"web": [[[5] * number] * 10 for number in range(1, 21)]})
    found = split_statistics(data, max_documents=40)
    assert found["documents"] == 200
    assert 20 <= found["documents_measured"] <= 40
    assert found["document_tokens"]["0"] < 5
    assert found["document_tokens"]["1"] > 15


def test_statistics_of_nothing(tmp_path):
    found = split_statistics(data_of(tmp_path, {"web": [[]]}))
    assert found["document_tokens"] == {}
    assert found["sources"]["web"]["share"] == 0


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(st.lists(st.lists(st.booleans(), max_size=9), max_size=4), max_size=5),
)
def test_begins_of_words_come_back(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("words")
    written = write_shard(
        folder,
        "train",
        0,
        [
            encoded([[7] * len(flags) for flags in batch])._replace(
                word_begins=np.array([flag for flags in batch for flag in flags], bool)
            )
            for batch in batches
        ],
        vocab_size=VOCAB,
        eos_id=EOS,
        words=True,
    ).shard
    rows = [flags for batch in batches for flags in batch]
    expected = [flag for flags in rows for flag in [*flags, True]]
    assert written.num_words == sum(map(sum, rows))
    assert written.words.num_bytes == -(-len(expected) // 8)
    publish(folder, {"train": [written]})
    data = open_split(folder, "train")
    assert data.has_words
    assert data.words(0, data.num_tokens).tolist() == expected
    for start in range(len(expected)):
        assert data.words(start, len(expected) - start).tolist() == expected[start:]
        assert data.words(start // 2, start // 3).tolist() == expected[start // 2 : start // 2 + start // 3]
    with pytest.raises(IndexError, match="lie outside 0 to"):
        data.words(1, len(expected))
