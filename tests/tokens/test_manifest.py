"""The manifest: it says everything, any change of it is found, and old ones are read as they were."""

import copy
import json
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_helpers import VOCAB, encoded, publish

from maskwright.core.errors import ShardError
from maskwright.core.inventory import FileEntry
from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry, load_manifest, save_manifest
from maskwright.tokens.shards import open_split, write_shard

DOCUMENTS = [[5, 6, 7], [], [8, 9]]
# As it was written before there were sources.
VERSION_1 = {
    "format_version": 1,
    "fingerprint": "16ce3d74a0d00d27fc38f261fa9733c1",
    "tokenizer": {"fingerprint": "f" * 32, "vocab_size": 300},
    "dtype": "uint16",
    "splits": {
        "train": {
            "num_tokens": 5,
            "num_documents": 2,
            "shards": [
                {
                    "num_tokens": 5,
                    "num_documents": 2,
                    "tokens": {"path": "train/shard-00000.tokens", "num_bytes": 10, "sha256": "a" * 64},
                    "documents": {"path": "train/shard-00000.documents", "num_bytes": 16, "sha256": "b" * 64},
                }
            ],
            "num_text_bytes": 20,
        }
    },
    "token_counts": {"path": "token_counts.bin", "num_bytes": 2400, "sha256": "c" * 64},
    "provenance": {"request": "r"},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two sources, one with sentences, and two splits."""
    folder = tmp_path_factory.mktemp("manifest")
    with_sentences = encoded(DOCUMENTS, [[2, 1], [], [2]])
    common = {"vocab_size": VOCAB, "eos_id": 2}
    shards = [
        write_shard(folder, "train", 0, [encoded(DOCUMENTS)], source="books", **common),
        write_shard(folder, "train", 1, [encoded(DOCUMENTS)], source="books", **common),
        write_shard(folder, "train", 2, [with_sentences], source="web", sentences=True, **common),
    ]
    other = write_shard(folder, "validation", 0, [encoded(DOCUMENTS)], source="web", **common)
    splits = {"train": [written.shard for written in shards], "validation": [other.shard]}
    publish(folder, splits, repeats={"books": 1.5, "web": 0.25})
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(original, tmp_path / "data")


def write(folder, values):
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def test_the_manifest_describes_itself(original):
    manifest = load_manifest(original)
    values = json.loads((original / "manifest.json").read_text())
    assert values["fingerprint"] == manifest.fingerprint
    assert values["splits"]["train"]["num_documents"] == manifest.splits["train"].num_documents == 9
    assert values["splits"]["train"]["num_tokens"] == manifest.splits["train"].num_tokens


def set_value(values, value, *path):
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tokenizer", "fingerprint"), "0" * 32),
        (("tokenizer", "vocab_size"), 301),
        (("provenance", "request"), "another"),
        (("repeats", "books"), 2.5),
        (("splits", "train", "num_tokens"), 1),
        (("splits", "train", "shards", 0, "source"), "book"),
        (("splits", "train", "shards", 0, "tokens", "path"), "validation/shard-00000.tokens"),
        (("splits", "train", "num_text_bytes"), 1),
        (("splits", "train", "shards"), []),
        (("splits", "validation"), {"shards": [], "num_text_bytes": 0}),
        (("splits", "train", "shards", 0, "tokens", "sha256"), "0" * 64),
        (("token_counts", "sha256"), "0" * 64),
        (("fingerprint",), "0" * 32),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_changed_manifest_is_refused(folder, path, value):
    file = folder / "manifest.json"
    values = json.loads(file.read_text())
    claimed = values["fingerprint"] if path != ("fingerprint",) else value
    set_value(values, value, *path)
    file.write_text(json.dumps(values))
    said = f"manifest.json: was changed after it was written (fingerprint {claimed}); prepare the data again"
    with pytest.raises(ShardError, match=re.escape(said)):
        load_manifest(folder)


@pytest.mark.parametrize("name", ["num_tokens", "num_documents"])
def test_counts_that_do_not_fit_the_files(folder, name):
    file = folder / "manifest.json"
    values = json.loads(file.read_text())
    values["splits"]["train"]["shards"][0][name] -= 1
    file.write_text(json.dumps(values))
    with pytest.raises(
        ShardError, match=r"manifest\.json: .*shard-00000\.\w+ has \d+ bytes, \d+ entries need \d+"
    ):
        load_manifest(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "null", "{}", '{"splits": []}', '{"splits": {"train": []}}', "\xff"]
)
def test_a_damaged_manifest(folder, content):
    (folder / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(ShardError, match="; prepare the data again"):
        load_manifest(folder)


def test_a_manifest_of_a_newer_version(folder):
    file = folder / "manifest.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "format_version": 3}))
    with pytest.raises(ShardError, match="format_version is 3, but this Maskwright reads up to 2"):
        load_manifest(folder)


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(
        ShardError, match=r"has no manifest\.json, so no finished data; run maskwright prepare"
    ):
        load_manifest(tmp_path)


def test_what_is_saved_is_loaded(original):
    manifest = load_manifest(original)
    assert manifest.repeats == {"books": 1.5, "web": 0.25}
    assert [shard.source for shard in manifest.splits["train"].shards] == ["books", "books", "web"]
    assert manifest.splits["train"].tokens_by_source == {"books": 16, "web": 8}
    assert [len(shard.files) for shard in manifest.splits["train"].shards] == [2, 2, 3]
    assert manifest.splits["train"].shards[2].num_sentences == 3
    before = (original / "manifest.json").read_bytes()
    save_manifest(original, manifest)
    assert (original / "manifest.json").read_bytes() == before
    assert load_manifest(original) == manifest


def test_provenance_may_hold_keys_that_are_numbers(tmp_path):
    manifest = Manifest.model_validate(
        {
            **{
                name: value
                for name, value in VERSION_1.items()
                if name not in ("format_version", "fingerprint")
            },
            "splits": {},
            "provenance": {"counts": {2: 1, 10: 1}, "name": "\ud800 中"},
        }
    )
    save_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path).provenance == {"counts": {"2": 1, "10": 1}, "name": "\ud800 中"}


def load_or_refuse(folder):
    try:
        return load_manifest(folder)
    except ShardError:
        return None


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_any_byte_is_found_or_means_the_same(folder, bit):
    path, good = folder / "manifest.json", load_manifest(folder)
    whole = path.read_bytes()
    harmless = 0
    for place in range(bit % 2, len(whole), 2):  # each bit in every second byte
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        found = load_or_refuse(folder)
        assert found in (good, None), place
        harmless += found is not None
    # Nothing but white space may change and mean the same.
    assert harmless <= whole.count(b" ") + whole.count(b"\n")


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_is_found_or_means_the_same(original, place, byte):
    source = original / "manifest.json"
    whole = source.read_bytes()
    number = int(place * len(whole))
    folder = original / "changed"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(whole[:number] + bytes([byte]) + whole[number + 1 :])
    assert load_or_refuse(folder) in (load_manifest(original), None)


def test_data_of_version_1_keeps_its_name_and_can_be_read(tmp_path):
    manifest = load_manifest(write(tmp_path, VERSION_1))
    assert manifest.fingerprint == VERSION_1["fingerprint"]
    assert manifest.splits["train"].tokens_by_source == {"": 5}
    assert (manifest.repeats, manifest.splits["train"].shards[0].files[2:]) == ({}, ())
    save_manifest(tmp_path, manifest)
    again = load_manifest(tmp_path)
    assert (again, again.fingerprint) == (manifest, manifest.fingerprint)


def test_only_version_1_may_lack_the_checksum(tmp_path):
    with pytest.raises(ShardError, match="was changed after it was written"):
        load_manifest(write(tmp_path, {**VERSION_1, "format_version": 2}))
    with pytest.raises(ShardError, match="was changed after it was written"):
        load_manifest(write(tmp_path, {**VERSION_1, "checksum": "0" * 32}))


def manifest_of(*shards, repeats=None):
    values = copy.deepcopy(VERSION_1["splits"]["train"]["shards"][0])
    return Manifest(
        tokenizer=TokenizerEntry(fingerprint="f", vocab_size=300),
        dtype="uint16",
        splits={
            "train": Split(shards=tuple(Shard(**{**values, **shard}) for shard in shards), num_text_bytes=1)
        },
        repeats=repeats or {},
        token_counts=FileEntry(path="c", num_bytes=0, sha256="c"),
        provenance={},
    )


def test_the_name_of_the_data_depends_on_sources_mixture_and_sentences():
    sentences = FileEntry(path="s", num_bytes=8, sha256="s")
    manifests = [
        manifest_of({}),
        manifest_of({"source": "web"}),
        manifest_of({"source": "books"}),
        manifest_of({"source": "web"}, repeats={"web": 2.0}),
        manifest_of({"source": "web"}, repeats={"web": 3.0}),
        manifest_of({"sentences": sentences, "num_sentences": 1}),
    ]
    assert len({manifest.fingerprint for manifest in manifests}) == len(manifests)


def test_shards_of_a_source_lie_together():
    said = "split 'train' has shards of other sources between those of 'web'"
    with pytest.raises(ValueError, match=said):
        manifest_of({"source": "web"}, {"source": "books"}, {"source": "web"})


def test_repeats_are_not_negative():
    with pytest.raises(ValueError, match=r"repeats of 'web' is -1\.0, expected 0 or more"):
        manifest_of({"source": "web"}, repeats={"web": -1})


def test_sentences_fit_their_file():
    wrong = {"sentences": FileEntry(path="s", num_bytes=8, sha256="s"), "num_sentences": 2}
    with pytest.raises(ValueError, match="s has 8 bytes, 2 entries need 16"):
        manifest_of(wrong)


def test_a_manifest_that_was_read_is_not_read_again(folder):
    manifest = load_manifest(folder)
    (folder / "manifest.json").unlink()
    assert open_split(folder, "train", manifest).manifest is manifest


def test_words_fit_their_file_and_make_other_data():
    words = FileEntry(path="w", num_bytes=1, sha256="w")
    with pytest.raises(ValueError, match="w has 1 bytes, 9 entries need 2"):
        manifest_of(
            {"words": words, "num_tokens": 9, "tokens": FileEntry(path="t", num_bytes=18, sha256="t")}
        )
    small = {"num_tokens": 8, "tokens": FileEntry(path="t", num_bytes=16, sha256="t")}
    assert manifest_of({**small, "words": words}).fingerprint != manifest_of(small).fingerprint
