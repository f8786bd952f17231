"""The index of samples: made once, opened cheaply, made again where it is damaged or of other data."""

import errno
import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from sentence_data import ALL, BOS, STORY, library, opened, same_batches, sentence_data
from shard_helpers import EOS, publish

from maskwright.core.inventory import FileEntry
from maskwright.core.lock import lock_folder
from maskwright.tokens.formats import FormatConfig, borders, index, index_files
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import EncodedDocuments, open_split, write_shard
from maskwright.tokens.stream import SampleStream


def stream_of(data, name="segment-pair", length=24, **options):
    return SampleStream(data, length, BOS, EOS, 1, format=FormatConfig(name=name, **options))


def stored(folder):
    (path,) = (folder / "samples").iterdir()
    return path


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def data(tmp_path):
    return sentence_data(tmp_path, STORY)


@pytest.fixture
def makings(monkeypatch):
    """How often an index was made."""
    made = []
    cut_all = index._cut_all
    monkeypatch.setattr(index, "_cut_all", lambda *arguments: (made.append(1), cut_all(*arguments))[1])
    return made


@pytest.mark.parametrize("name", ALL)
def test_it_is_made_once(data, makings, name):
    batches = [stream_of(data, name).batch(0, 50) for _ in range(3)]
    assert makings == [1]
    assert all(same_batches(batch, batches[0]) for batch in batches)
    assert {path.name for path in stored(data.folder).iterdir()} == {
        "index.json", "starts.npy", "lengths.npy", "singles.npy"
    }  # fmt: skip


def test_seeds_orders_and_budgets_share_it_and_other_cuts_have_their_own(data, makings):
    stream_of(data, short_share=0.1)
    SampleStream(data, 24, BOS, EOS, 7, shuffle=False, format=FormatConfig(name="segment-pair"))
    stream_of(data, steps_by_tokens=True)
    assert makings == [1]
    stream_of(data, short_share=0.2)
    stream_of(data, length=25)
    SampleStream(data, 24, BOS, EOS, 1, format=FormatConfig(name="segment-pair"), separators=1)
    assert makings == [1] * 4
    assert len(list((data.folder / "samples").iterdir())) == 4


def test_opening_reads_no_shard_and_a_batch_its_own(tmp_path, monkeypatch):
    _, data = library(tmp_path)
    stream_of(data, "full-sentences", 64)
    looks = []
    check = FileEntry.check
    monkeypatch.setattr(
        FileEntry,
        "check",
        lambda entry, *rest, **options: (looks.append(entry.path), check(entry, *rest, **options))[1],
    )
    stream = stream_of(open_split(tmp_path, "train"), "full-sentences", 64)
    opening = [path for path in looks if path.startswith("train/")]
    del looks[:]
    stream.batch(5, 1)
    assert len(looks) == 1
    assert looks[0].endswith(".tokens")
    # What opening a split verifies by itself, each file once.
    assert len(opening) == len(set(opening)) == 4 * 3


DAMAGES = {
    "a flipped bit": (lambda path: flip(path / "starts.npy", -3), r"starts\.npy: is damaged"),
    "a cut array": (lambda path: os.truncate(path / "lengths.npy", 130), r"lengths\.npy: has 130 bytes"),
    "a missing array": (lambda path: (path / "singles.npy").unlink(), r"singles\.npy: is missing; it is not"),
    "no description": (lambda path: (path / "index.json").unlink(), r"index\.json: no such file"),
    "half a description": (
        lambda path: os.truncate(path / "index.json", 50),
        r"index\.json: is not valid JSON",
    ),
    "another request": (
        lambda path: edit(path, lambda values: values["request"].update(data="0" * 32)),
        r"\(it belongs to other data\)",
    ),
    "an unknown key": (lambda path: edit(path, lambda values: values.update(colour="red")), "colour"),
    "a missing entry": (
        lambda path: edit(path, lambda values: values["files"].pop("starts")),
        r"\(index\.json does not name its files\)",
    ),
    "no array": (
        lambda path: replaced(path, lambda file: file.write_bytes(b"nothing that NumPy knows")),
        r"\(starts\.npy is no array\)",
    ),
    "another array": (
        lambda path: replaced(path, lambda file: np.save(file, np.zeros(3, np.int64))),
        r"\(starts\.npy holds something else\)",
    ),
}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def edit(path, change):
    values = json.loads((path / "index.json").read_text())
    change(values)
    (path / "index.json").write_text(json.dumps(values))


def replaced(path, write):
    write(path / "starts.npy")
    entry = index_files.describe_file(path, "starts.npy").model_dump()
    edit(path, lambda values: values["files"].update(starts=entry))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_one_is_made_again(data, makings, caplog, damage):
    batch = stream_of(data).batch(0, 50)
    action, said = DAMAGES[damage]
    action(stored(data.folder))
    with caplog.at_level(logging.WARNING):
        assert same_batches(stream_of(data).batch(0, 50), batch)
    assert makings == [1, 1]
    (record,) = warnings_of(caplog)
    assert f"{stored(data.folder)}: the index of samples is made again (" in record.getMessage()
    assert re.search(said, record.getMessage())
    stream_of(data)
    assert makings == [1, 1]


def test_data_made_again_with_other_text_gets_its_own(tmp_path, makings):
    stream_of(sentence_data(tmp_path, STORY))
    shutil.rmtree(tmp_path / "train")
    other = sentence_data(tmp_path, {"web": [[[5, 5, 5], [6, 6, 6]]]})
    assert stream_of(other).samples_per_epoch == 3  # one whole run, one divided
    assert makings == [1, 1]


def test_a_file_in_its_place_is_replaced(data):
    stream_of(data)
    path = stored(data.folder)
    shutil.rmtree(path)
    path.write_text("in the way")
    stream_of(data)
    assert [child.name for child in (data.folder / "samples").iterdir()] == [path.name]
    assert path.is_dir()


def test_what_a_killed_process_left_is_removed(data):
    stream_of(data)
    path = stored(data.folder)
    shutil.rmtree(path)
    (path.parent / f"{path.name}.partial-12345678").mkdir()
    (path.parent / f"{path.name}.partial-12345678" / "starts.npy").write_bytes(b"half")
    stream_of(data)
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ALL)
def test_where_nothing_can_be_written_it_stays_in_memory(data, makings, caplog, name):
    with opened(STORY, name) as stream:
        expected = stream.batch(0, 50)
    (data.folder / "samples").write_text("in the way")
    del makings[:]
    with caplog.at_level(logging.WARNING):
        assert same_batches(stream_of(data, name).batch(0, 50), expected)
    assert makings == [1]
    (record,) = warnings_of(caplog)
    assert record.getMessage().startswith(f"{data.folder / 'samples'}: is a file, expected a folder")
    assert record.getMessage().endswith(
        "; the index of samples is kept in memory, and made again by the next run"
    )


def test_a_full_disk_leaves_nothing_behind_and_the_run_goes_on(data, monkeypatch, caplog):
    with opened(STORY, "segment-pair") as stream:
        expected = stream.batch(0, 50)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(index_files._Growing, "append", refuse)
    with caplog.at_level(logging.WARNING):
        assert same_batches(stream_of(data).batch(0, 50), expected)
    assert "No space left on device; free some space" in caplog.text
    assert list((data.folder / "samples").iterdir()) == []


def test_processes_wait_for_each_other(data, makings, monkeypatch, caplog):
    """The other process is this test, which holds the lock until the stream has waited for it."""
    stream_of(data)
    path = stored(data.folder)
    path.rename(path.with_name("made by the other"))
    del makings[:]
    holding = lock_folder(path.parent, name=f".{path.name}.lock")
    holding.__enter__()

    def wait(seconds):
        path.with_name("made by the other").rename(path)
        holding.__exit__(None, None, None)

    monkeypatch.setattr(index_files.time, "sleep", wait)
    with caplog.at_level(logging.INFO):
        stream_of(data)
    assert makings == []
    assert f"{path}: another process makes it; waiting" in caplog.text


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1, 3, 10])
def test_reading_a_shard_in_parts_changes_nothing(name, size, monkeypatch):
    with opened(STORY, name) as stream:
        expected = stream.batch(0, 60)
    monkeypatch.setattr(borders, "BLOCK_SENTENCES", size)
    with opened(STORY, name) as stream:
        assert same_batches(stream.batch(0, 60), expected)


def test_long_makings_say_how_far_along_they_are(data, monkeypatch, caplog):
    monkeypatch.setattr(index, "SAY_EVERY_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        stream_of(data, "doc-sentences")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"indexing samples: 90 of {data.num_tokens} tokens, ")
    assert said[-1].startswith("indexed 18 samples of 253 tokens (train-doc-sentences-24-")


@pytest.mark.parametrize("name", ALL)
def test_documents_whose_last_sentence_has_no_stored_end(tmp_path, name):
    """As data of others may have it: what is left of a document counts as its last sentence."""
    whole, partly = tmp_path / "whole", tmp_path / "partly"
    lengths = [[5, 4, 6], [3], [7, 2, 9, 8], [6, 6]]
    data = sentence_data(whole, {"": [lengths]})
    ids = [5 + place % 290 for document in lengths for place in range(sum(document))]
    ends = np.cumsum([length for document in lengths for length in document])
    lacking = ends[~np.isin(ends, np.cumsum([sum(document) for document in lengths])[[0, 1, 3]])]
    counts = np.array([sum(document) for document in lengths])
    batch = EncodedDocuments(np.array(ids, np.uint16), counts, lacking)
    written = write_shard(partly, "train", 0, [batch], vocab_size=300, eos_id=EOS, sentences=True)
    publish(partly, {"train": [written.shard]})
    assert load_manifest(partly).splits["train"].shards[0].num_sentences == len(ends) - 3
    one, other = stream_of(data, name), stream_of(open_split(partly, "train"), name)
    assert same_batches(one.batch(0, 40), other.batch(0, 40))
