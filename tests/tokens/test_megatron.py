"""Megatron files: written as others read them, read as others write them, and there and back again."""

import itertools
import struct

import numpy as np
import pytest
import shard_helpers
import vocabulary_makers as makers

from maskwright.core.errors import DataError, ShardError
from maskwright.tokens.interchange import MegatronFile, batches, export_megatron, import_megatron, megatron
from maskwright.tokens.shard_writing import write_shard
from maskwright.tokens.shards import open_split, verify_folder
from maskwright.tokens.tokenizer import Tokenizer

GROUPS = {"a": [[[5, 6, 7], [], [8]], [[9, 10]]], "b": [[[11] * 40, [12, 13]]]}
DOCUMENTS = [[5, 6, 7], [], [8], [9, 10], [11] * 40, [12, 13]]
EOS = shard_helpers.EOS


def read_independently(prefix):
    """Sequences by document, by the description of the format and nothing of ours."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, borders = struct.unpack("<QBQQ", index[9:34])
    assert version == 1
    dtype = {4: np.int32, 8: np.uint16}[code]
    place = 34
    columns = []
    for kind, count in (("<i4", sequences), ("<i8", sequences), ("<i8", borders)):
        columns.append(np.frombuffer(index, kind, count, place))
        place += columns[-1].nbytes
    assert place == len(index)
    sizes, pointers, documents = columns
    data = prefix.with_name(prefix.name + ".bin").read_bytes()
    rows = [np.frombuffer(data, dtype, size, at).tolist() for size, at in zip(sizes, pointers, strict=True)]
    assert sum(sizes) * np.dtype(dtype).itemsize == len(data)
    return [rows[start:end] for start, end in itertools.pairwise(documents)]


def write_independently(prefix, documents, code=8, kind="<u2"):
    """Write documents, each a list of sequences, as Megatron's builder does."""
    rows = [row for document in documents for row in document]
    width = np.dtype(kind).itemsize
    prefix.with_name(prefix.name + ".bin").write_bytes(
        np.array([i for row in rows for i in row], kind).tobytes()
    )
    sizes = np.array([len(row) for row in rows], "<i4")
    pointers = ((np.cumsum(sizes) - sizes) * width).astype("<i8")
    borders = np.cumsum([0, *(len(document) for document in documents)]).astype("<i8")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(borders))
    columns = b"".join(column.tobytes() for column in (sizes, pointers, borders))
    prefix.with_name(prefix.name + ".idx").write_bytes(header + columns)
    return prefix


@pytest.fixture
def data(tmp_path):
    return shard_helpers.data_of(tmp_path / "data", GROUPS)


@pytest.mark.parametrize("most_tokens", [1, 7, 1 << 20])
@pytest.mark.parametrize("keep_eos", [True, False])
def test_export(data, tmp_path, monkeypatch, keep_eos, most_tokens):
    monkeypatch.setattr(batches, "TOKENS_PER_BATCH", most_tokens)
    counts = export_megatron(data, tmp_path / "out" / "x", keep_eos=keep_eos)
    expected = [[[*row, EOS] if keep_eos else row] for row in DOCUMENTS]
    assert read_independently(tmp_path / "out" / "x") == expected
    tokens = sum(map(len, DOCUMENTS)) + keep_eos * len(DOCUMENTS)
    assert counts == {"sequences": 6, "documents": 6, "tokens": tokens}


@pytest.mark.parametrize("keep_eos", [True, False])
def test_export_of_sentences(tmp_path, keep_eos):
    batch = shard_helpers.encoded([[5, 6, 7, 8], [], [9]], [[1, 3], [], [1]])
    written = write_shard(
        tmp_path, "train", 0, [batch], vocab_size=shard_helpers.VOCAB, eos_id=EOS, sentences=True
    )
    shard_helpers.publish(tmp_path, {"train": [written.shard]})
    export_megatron(open_split(tmp_path, "train"), tmp_path / "x", keep_eos=keep_eos, sentences=True)
    close = [EOS] if keep_eos else []
    assert read_independently(tmp_path / "x") == [[[5], [6, 7, 8, *close]], [close], [[9, *close]]]


def test_sentences_that_nobody_stored(data, tmp_path):
    with pytest.raises(ShardError, match="was prepared without the ends of sentences"):
        export_megatron(data, tmp_path / "x", sentences=True)
    assert not (tmp_path / "x.bin").exists()


def test_large_vocabularies_are_signed(tmp_path):
    folder = tmp_path / "data"
    batch = shard_helpers.encoded([[70_000, 1]])
    written = write_shard(folder, "train", 0, [batch], vocab_size=100_000, eos_id=EOS)
    shard_helpers.publish(folder, {"train": [written.shard]}, dtype="uint32")
    export_megatron(open_split(folder, "train"), tmp_path / "x.bin")
    assert (tmp_path / "x.idx").read_bytes()[17] == 4
    assert read_independently(tmp_path / "x") == [[[70_000, 1, EOS]]]


def test_a_document_that_is_too_long(data, tmp_path, monkeypatch):
    monkeypatch.setattr(megatron, "_LONGEST", 40)
    with pytest.raises(
        DataError, match=r"x\.bin: a document has 41 tokens, the format ends at 40; export sent"
    ):
        export_megatron(data, tmp_path / "x")
    assert not (tmp_path / "x.idx").exists()


@pytest.mark.parametrize(("code", "kind"), [(8, "<u2"), (4, "<i4"), (5, "<i8"), (3, "<i2"), (1, "u1")])
def test_reading_every_type(tmp_path, code, kind):
    documents = [[[1, 2], [3]], [], [[4]]]
    file = MegatronFile(write_independently(tmp_path / "x", documents, code, kind))
    assert (file.num_sequences, file.num_documents) == (3, 3)
    assert [[row.tolist() for row in file.document(number)] for number in range(3)] == documents
    assert file.sequence(2).dtype == np.int64


def test_reading_nothing(tmp_path):
    file = MegatronFile(write_independently(tmp_path / "x", []))
    assert (file.num_sequences, file.num_documents) == (0, 0)


@pytest.fixture
def tokenizer():
    return makers.byte_level()


def texts_of(folder, split, tokenizer):
    data = open_split(folder, split)
    return [tokenizer.decode(data.document(number)) for number in range(data.num_documents)]


@pytest.mark.parametrize("most_tokens", [3, 100, 1 << 20])
@pytest.mark.parametrize("tokens_per_shard", [1, 60, 10_000])
def test_import(tmp_path, tokenizer, tokens_per_shard, most_tokens, monkeypatch):
    monkeypatch.setattr(megatron, "TOKENS_PER_BATCH", most_tokens)
    texts = [*makers.TEXTS[:6], "", "naïve 中文"]
    rows = [[[*tokenizer.encode(text).tolist(), tokenizer.eos_id]] for text in texts]
    prefixes = {
        "train": write_independently(tmp_path / "t", rows),
        "validation": write_independently(tmp_path / "v", rows[:2]),
    }
    folder = tmp_path / "data"
    manifest = import_megatron(prefixes, folder, tokenizer, tokens_per_shard=tokens_per_shard)
    assert texts_of(folder, "train", tokenizer) == texts
    assert texts_of(folder, "validation", tokenizer) == texts[:2]
    assert manifest.splits["train"].num_text_bytes == sum(len(text.encode()) for text in texts)
    assert (len(manifest.splits["train"].shards) == 1) == (tokens_per_shard == 10_000)
    assert verify_folder(folder) > 0
    counted = open_split(folder, "train").token_counts()
    assert counted.sum() == manifest.splits["train"].num_tokens
    assert counted[tokenizer.eos_id] == len(texts)


def test_import_of_sentences_and_another_closing_id(tmp_path, tokenizer):
    closing = tokenizer.unk_id
    documents = [[[10, 11], [12, closing]], [[closing]], [[13], [14]], [[15], [closing]]]
    prefixes = {"train": write_independently(tmp_path / "t", documents)}
    import_megatron(prefixes, tmp_path / "data", tokenizer, closing_id=closing, sentences=True)
    data = open_split(tmp_path / "data", "train")
    assert [data.document(number).tolist() for number in range(4)] == [[10, 11, 12], [], [13, 14], [15]]
    assert [data.sentences(number).tolist() for number in range(4)] == [[2, 3], [], [1, 2], [1]]


def test_there_and_back_again(tmp_path, tokenizer):
    texts = {"train": makers.TEXTS[:20], "validation": makers.TEXTS[20:23]}
    before = makers.write_data(tmp_path / "data", tokenizer, texts)
    for split in texts:
        export_megatron(open_split(tmp_path / "data", split), tmp_path / split)
    prefixes = {split: tmp_path / split for split in texts}
    after = import_megatron(prefixes, tmp_path / "again", tokenizer, tokens_per_shard=200)
    assert after == before
    assert Tokenizer.load(tmp_path / "again" / "tokenizer").fingerprint == tokenizer.fingerprint


def test_import_counts_the_bytes_of_other_kinds(tmp_path):
    tokenizer = Tokenizer.load(makers.write_bert(tmp_path / "bert", do_lower_case=True))
    prefixes = {"train": write_independently(tmp_path / "t", [[tokenizer.encode("the ferry").tolist()]])}
    manifest = import_megatron(prefixes, tmp_path / "data", tokenizer)
    assert manifest.splits["train"].num_text_bytes == 9


@pytest.mark.parametrize("number", [350, -1])
def test_ids_that_the_tokenizer_has_not(tmp_path, tokenizer, number):
    prefix = write_independently(tmp_path / "t", [[[5]], [[5, number]]], 4, "<i4")
    with pytest.raises(
        DataError, match=rf"t\.bin: document 1 has id {number}, the tokenizer ends at 349; import"
    ):
        import_megatron({"train": prefix}, tmp_path / "data", tokenizer)
    assert not (tmp_path / "data" / "manifest.json").exists()


def damage_index(change):
    def damage(prefix):
        path = prefix.with_name(prefix.name + ".idx")
        path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda prefix: prefix.with_name("x.bin").unlink(),
            r"x\.bin: no such file; a Megatron dataset has a \.bin",
        ),
        (lambda prefix: prefix.with_name("x.idx").unlink(), r"x\.idx: no such file; a Megatron dataset"),
        (damage_index(lambda index: b"TNTIDX" + index), r"x\.idx: does not begin as an index of Megatron"),
        (damage_index(lambda index: index[:20]), r"x\.idx: does not begin as an index of Megatron"),
        (
            damage_index(lambda index: index[:9] + b"\2" + index[10:]),
            "has version 2 and type 8, expected version 1",
        ),
        (
            damage_index(lambda index: index[:17] + b"\6" + index[18:]),
            "has version 1 and type 6, expected version 1",
        ),
        (
            damage_index(lambda index: index[:-1]),
            r"x\.idx: has \d+ bytes, its header says \d+; copy it again",
        ),
        (
            damage_index(lambda index: index[:-8] + b"\1" + bytes(7)),
            r"its documents do not cover its 2 sequences",
        ),
        (
            lambda prefix: prefix.with_name("x.bin").write_bytes(b"12"),
            r"x\.bin: has 2 bytes, its index speaks of 6",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    prefix = write_independently(tmp_path / "x", [[[1, 2]], [[3]]])
    damage(prefix)
    with pytest.raises(DataError, match=message):
        MegatronFile(prefix)
