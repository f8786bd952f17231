"""Shards and their manifest: what goes in comes out, and whatever was changed is named."""

import random
import re
import shutil

import numpy as np
import pytest
from shard_helpers import ShardWriter

import tiny_world
from maskwright.core.errors import ShardError
from maskwright.core.fingerprint import sha256_file
from maskwright.tokens.manifest import Manifest, TokenizerEntry, load_manifest, save_manifest
from maskwright.tokens.shards import (
    TokenData,
    open_split,
    token_dtype,
    verify_folder,
    write_array,
)
from maskwright.tokens.tokenizer import Tokenizer

TEXTS = [tiny_world.text(random.Random(number), "kitchen", 1 + number % 4) for number in range(50)]


def publish(folder, splits, tokenizer, dtype, counts):
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size),
        dtype=dtype,
        splits=splits,
        token_counts=write_array(folder, "token_counts.bin", counts),
        provenance={},
    )
    save_manifest(folder, manifest)
    return manifest


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory):
    """Several shards; documents are added a few at a time, one of them empty."""
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, "train", tokenizer, tokens_per_shard=300)
    for start in range(0, len(TEXTS), 3):
        writer.add(TEXTS[start : start + 3])
    writer.add([""])
    other = ShardWriter(folder, "validation", tokenizer, tokens_per_shard=10_000)
    other.add(TEXTS[:4])
    splits = {"train": writer.finish(), "validation": other.finish()}
    publish(folder, splits, tokenizer, writer.dtype.name, writer.token_counts)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(original, tmp_path / "data")


def test_what_goes_in_comes_out(original, tokenizer):
    data = open_split(original, "train")
    assert len(data.shards) > 3
    assert data.num_documents == len(TEXTS) + 1
    rows = [[*tokenizer.encode(text).tolist(), tokenizer.eos_id] for text in [*TEXTS, ""]]
    everything = [number for row in rows for number in row]
    assert data.num_tokens == len(everything)
    assert data.tokens(0, data.num_tokens).tolist() == everything
    for number, row in enumerate(rows):
        assert data.document(number).tolist() == row[:-1]
    assert data.manifest.splits["train"].num_text_bytes == sum(len(text.encode()) for text in TEXTS)


def test_windows_across_shards(original):
    data = open_split(original, "train")
    everything = data.tokens(0, data.num_tokens)
    chance = random.Random(1)
    for _ in range(200):
        start = chance.randrange(data.num_tokens + 1)
        count = chance.randrange(data.num_tokens + 1 - start)
        assert np.array_equal(data.tokens(start, count), everything[start : start + count])
    assert data.tokens(5, 3).dtype == np.int64


def test_a_range_outside_the_split(original):
    data = open_split(original, "train")
    for start, count in ((-1, 2), (0, -1), (data.num_tokens, 1), (0, data.num_tokens + 1)):
        with pytest.raises(IndexError, match=f"lie outside 0 to {data.num_tokens}"):
            data.tokens(start, count)


def test_a_document_that_is_not_there(original):
    data = open_split(original, "train")
    for number in (-1, data.num_documents):
        with pytest.raises(
            ShardError, match=f"document {number} does not exist; train has {data.num_documents}"
        ):
            data.document(number)


def test_counts_of_the_training_tokens(original):
    data = open_split(original, "validation")
    train = open_split(original, "train")
    expected = np.bincount(train.tokens(0, train.num_tokens), minlength=300)
    assert np.array_equal(data.token_counts(), expected)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(300, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_two_bytes_a_token_while_they_suffice(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


def test_four_bytes_a_token(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("maskwright.tokens.shard_writing.token_dtype", lambda vocab_size: "uint32")
    writer = ShardWriter(tmp_path, "train", tokenizer, 100)
    writer.add(TEXTS[:9])
    split = writer.finish()
    publish(tmp_path, {"train": split}, tokenizer, "uint32", writer.token_counts)
    data = open_split(tmp_path, "train")
    assert split.shards[0].tokens.num_bytes == 4 * split.shards[0].num_tokens
    assert data.document(8).tolist() == tokenizer.encode(TEXTS[8]).tolist()


def test_bytes_are_little_endian(tmp_path):
    entry = write_array(tmp_path, "a.bin", np.array([1, 258], ">u2"))
    assert (tmp_path / "a.bin").read_bytes() == b"\x01\x00\x02\x01"
    assert entry.sha256 == sha256_file(tmp_path / "a.bin")


def test_an_unknown_split(folder):
    with pytest.raises(ShardError, match="has no split 'test'; it has train, validation"):
        open_split(folder, "test")


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")


def test_every_flipped_bit_is_found_and_named(folder):
    paths = all_files(folder)
    assert verify_folder(folder) == len(paths)
    for path in paths:
        whole = path.read_bytes()
        place = len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ShardError) as caught:
            verify_folder(folder)
        found = sha256_file(path)
        path.write_bytes(whole)
        said = sha256_file(path)
        assert str(caught.value) == (
            f"{path}: is damaged (SHA-256 {found}, the manifest says {said}); "
            "prepare the data again or restore the file"
        )
    verify_folder(folder)


def test_a_flipped_bit_stops_training_too(folder):
    path = folder / "train" / "shard-00001.tokens"
    whole = bytearray(path.read_bytes())
    whole[0] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ShardError, match=r"shard-00001\.tokens: is damaged \(SHA-256 "):
        open_split(folder, "train")
    open_split(folder, "validation")


def test_missing_and_truncated_files(folder):
    for path in all_files(folder):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        said = f"{path}: has {len(whole) - 1} bytes, the manifest says {len(whole)}; prepare the data again"
        with pytest.raises(ShardError, match=re.escape(said)):
            verify_folder(folder)
        path.unlink()
        with pytest.raises(ShardError, match=re.escape(f"{path}: is missing; prepare the data again")):
            verify_folder(folder)
        path.write_bytes(whole)


def test_a_truncated_shard_is_refused_even_without_checksums(folder):
    path = folder / "train" / "shard-00000.documents"
    path.write_bytes(path.read_bytes()[:-8])
    data = TokenData(folder, load_manifest(folder), "train")
    assert len(data.tokens(0, data.num_tokens)) == data.num_tokens
    with pytest.raises(ShardError, match=r"shard-00000\.documents: has \d+ bytes, the manifest says"):
        data.document(0)


def test_a_missing_shard_is_refused_before_anything_is_read(folder):
    (folder / "train" / "shard-00002.tokens").unlink()
    with pytest.raises(ShardError, match=r"shard-00002\.tokens: is missing; prepare the data again"):
        TokenData(folder, load_manifest(folder), "train")
    shutil.rmtree(folder / "train")
    with pytest.raises(ShardError, match=r"shard-00000\.tokens: is missing; prepare the data again"):
        TokenData(folder, load_manifest(folder), "train")
