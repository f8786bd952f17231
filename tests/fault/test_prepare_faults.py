"""Prepare runs that meet bad input, flipped bits and rivals."""

import gzip
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

import maskwright
import tiny_world
from maskwright.core.errors import DataError, ShardError
from maskwright.corpus.parts import read_part
from maskwright.corpus.readers import READERS
from maskwright.jobs import prepare as job
from maskwright.tokens.shards import open_split, verify_folder
from preparing import Killed, clean_documents, kill_at

pytestmark = pytest.mark.fault

DEADLINE_SECONDS = 120


@pytest.fixture
def given(data_folder):
    """A tokenizer, so that none has to be trained."""
    return f"tokenizer.path={data_folder / 'tokenizer'}"


def texts(count, seed=3):
    chance, names = random.Random(seed), sorted(tiny_world.TOPICS)
    return [tiny_world.text(chance, names[number % 3], 3) for number in range(count)]


def lines(count, seed=3):
    return [json.dumps({"text": text}).encode() + b"\n" for text in texts(count, seed)]


def audit_of(folder):
    return json.loads((folder / "audit.json").read_text())


def executed(folder):
    """How many tasks of each stage the last start did."""
    stages = json.loads((folder / "timings.json").read_text())["stages"]
    return {stage["name"]: stage["executed"] for stage in stages}


class TestBadInput:
    """What is wrong with the text is said with its place, and costs no more than it must."""

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_a_file_that_is_cut_off_stops_the_run_until_it_is_mended(
        self, command, write_recipe, tmp_path, suffix
    ):
        (tmp_path / "in").mkdir()
        pack = gzip.compress if suffix == ".gz" else zstandard.compress
        for number, name in enumerate(["a.jsonl", f"b.jsonl{suffix}", "c.jsonl"]):
            content = b"".join(lines(40, seed=number))
            (tmp_path / "in" / name).write_bytes(pack(content) if suffix in name else content)
        torn = tmp_path / "in" / f"b.jsonl{suffix}"
        whole = torn.read_bytes()
        torn.write_bytes(whole[: len(whole) // 2])
        recipe = write_recipe(tiny_world.prepare_values(tmp_path / "in"))
        failed = command("prepare", recipe, "-o", "out", "--workers", "1")
        assert failed.code == 2
        assert f"b.jsonl{suffix}: the compressed data is damaged or cut off" in failed.err
        assert not list((tmp_path / "out").glob("*.json"))
        torn.write_bytes(whole)
        assert command("prepare", recipe, "-o", "out", "--resume", "--workers", "1").code == 0
        assert executed(tmp_path / "out")["clean"] == 2
        assert command("prepare", recipe, "-o", "fresh").code == 0
        assert tiny_world.prepared_files(tmp_path / "out") == tiny_world.prepared_files(tmp_path / "fresh")

    @pytest.mark.parametrize("policy", ["strict", "replace", "skip"])
    def test_bytes_that_are_not_utf8(self, tmp_path, given, policy):
        rows = lines(40)
        rows[4] = b'{"text": "bad \xff byte"}\n'
        (tmp_path / "in.jsonl").write_bytes(b"".join(rows))
        source = {"path": str(tmp_path / "in.jsonl"), "encoding_errors": policy}
        values = {**tiny_world.PREPARE, "corpus": {"sources": [source]}, "keep_documents": True}
        if policy == "strict":
            with pytest.raises(DataError, match=r"in\.jsonl:5: byte 0xff is not UTF-8"):
                maskwright.prepare(values, given, output=tmp_path / "out")
            assert not (tmp_path / "out" / "manifest.json").exists()
            return
        maskwright.prepare(values, given, output=tmp_path / "out")
        audit, documents = audit_of(tmp_path / "out"), clean_documents(tmp_path / "out")
        expected = texts(40)
        expected[4] = "bad \ufffd byte"
        if policy == "skip":
            del expected[4]
        assert [document.text for document in documents] == expected
        assert audit["repairs"] == ({"invalid_utf8": 1} if policy == "replace" else {})
        assert audit["drops"] == ({"invalid_utf8": 1} if policy == "skip" else {})

    @pytest.mark.parametrize("split_bytes", [1 << 30, 2000])
    def test_malformed_lines_are_passed_over_up_to_the_limit(self, tmp_path, given, split_bytes):
        rows = lines(40)
        for number in (2, 20, 38):
            rows[number] = b'{"text": "torn\n'
        (tmp_path / "in.jsonl").write_bytes(b"".join(rows))
        source = {"path": str(tmp_path / "in.jsonl"), "max_bad_lines": 3}
        values = {**tiny_world.PREPARE, "corpus": {"sources": [source]}, "split_bytes": split_bytes}
        maskwright.prepare(values, given, output=tmp_path / "out")
        audit = audit_of(tmp_path / "out")
        assert audit["drops"] == {"malformed_json": 3}
        assert audit["documents_kept"] == 37
        assert audit["bad_lines"] == {"in:in.jsonl": 3}
        assert [":".join(sample.split(":")[:2]) for sample in audit["drop_samples"]["malformed_json"]] == [
            f"{tmp_path / 'in.jsonl'}:{line}" for line in (3, 21, 39)
        ]
        source["max_bad_lines"] = 2
        where = r"in\.jsonl:39: .* this is malformed line number 3 of this file"
        if split_bytes == 2000:
            where = r"in\.jsonl: has 3 malformed lines .*\(mend the file, or set max_bad_lines above 2\)"
        with pytest.raises(DataError, match=where):
            maskwright.prepare(values, given, output=tmp_path / "limited")
        assert not (tmp_path / "limited" / "manifest.json").exists()

    def test_a_field_that_is_not_there(self, tmp_path):
        (tmp_path / "in.jsonl").write_bytes(lines(1)[0] + b'{"txt": "x"}\n')
        with pytest.raises(DataError, match=r'in\.jsonl:2: has no "text"; did you mean "txt"\? \(set text_f'):
            maskwright.prepare(tiny_world.prepare_values(tmp_path / "in.jsonl"), output=tmp_path / "out")

    @pytest.mark.parametrize("content", ["empty folder", "empty file", "blank lines"])
    def test_sources_without_text(self, tmp_path, content):
        (tmp_path / "in").mkdir()
        if content != "empty folder":
            (tmp_path / "in" / "a.jsonl").write_bytes(b"" if content == "empty file" else b"\n\n")
        with pytest.raises(DataError, match=r"in: .*(holds no|no files|empty)"):
            maskwright.prepare(tiny_world.prepare_values(tmp_path / "in"), output=tmp_path / "out")
        assert not (tmp_path / "out" / "manifest.json").exists()

    def test_one_line_of_16_megabytes(self, tmp_path, given):
        long = " ".join(f"{number:x}" for number in range(2_600_000))
        assert len(long) > 16_000_000
        rows = lines(40)
        rows.insert(3, json.dumps({"text": long}).encode() + b"\n")
        (tmp_path / "in.jsonl").write_bytes(b"".join(rows))
        values = {**tiny_world.prepare_values(tmp_path / "in.jsonl"), "split_bytes": 1_000_000}
        maskwright.prepare(values, given, "keep_documents=true", output=tmp_path / "out", workers=1)
        documents = clean_documents(tmp_path / "out")
        assert [len(document.text) for document in documents].index(len(long)) == 3
        assert documents[3].text == long
        assert documents[4].id == "in:in.jsonl#5"
        verify_folder(tmp_path / "out")

    def test_links_that_lead_in_a_circle(self, tmp_path, given):
        (tmp_path / "in" / "deep").mkdir(parents=True)
        (tmp_path / "in" / "a.jsonl").write_bytes(b"".join(lines(40)))
        (tmp_path / "in" / "deep" / "back").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "deep" / "self").symlink_to(tmp_path / "in" / "deep" / "self")
        maskwright.prepare(tiny_world.prepare_values(tmp_path / "in"), given, output=tmp_path / "out")
        audit = audit_of(tmp_path / "out")
        assert (audit["documents_read"], audit["num_inputs"]) == (40, 1)

    def test_a_file_that_changes_while_it_is_read(self, tmp_path, given, monkeypatch):
        path = tmp_path / "in.jsonl"
        path.write_bytes(b"".join(lines(40)))
        honest = READERS["jsonl"]

        def reader(file, options, audit):
            for number, document in enumerate(honest(file, options, audit)):
                if number == 20:
                    with path.open("ab") as out:
                        out.write(lines(1, seed=9)[0])
                yield document

        values = tiny_world.prepare_values(path)
        with monkeypatch.context() as patch:
            patch.setitem(READERS, "jsonl", reader)
            with pytest.raises(DataError, match=r"in\.jsonl: .*changed while it was read"):
                maskwright.prepare(values, given, output=tmp_path / "out")
        assert not (tmp_path / "out" / "manifest.json").exists()
        maskwright.prepare(values, given, output=tmp_path / "out", resume=True)
        assert audit_of(tmp_path / "out")["documents_read"] == 41


def flip_bit(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def unfinished(values, tmp_path_factory):
    """A folder in which everything is done but for publishing it."""
    folder = tmp_path_factory.mktemp("unfinished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, job, "publish")
        with pytest.raises(Killed):
            maskwright.prepare(values, output=folder, workers=1)
    return folder


class TestFlippedBits:
    """Damage is found by name, and what can be made again is."""

    @pytest.mark.parametrize(
        "name",
        [
            "clean/part-00001-00000.digests",
            "clean/part-00001-00000.bands",
            "clean/part-00001-00000.signatures.npy",
            "clean/part-00001-00000.lengths.npy",
            "clean/part-00001-00000.lines",
            "clean/task-00002.json",
            "contamination/index.npz",
            "exact/drops-00000.npy",
            "bands/edges-00003.npy",
            "clusters/drops.npy",
            "lines/drops-00000.npy",
            "tokenizer/task-00000.json",
            "encode/counts-00001.bin",
            "encode/task-00001.json",
            "../tokenizer/tokenizer.json",
            "../train/shard-00001.tokens",
            "../validation/shard-00000.documents",
        ],
    )
    def test_in_what_the_stages_left(self, values, plain_files, unfinished, tmp_path, caplog, name):
        folder = shutil.copytree(unfinished, tmp_path / "out")
        path = folder / "work" / name
        flip_bit(path, 0.99 if path.suffix == ".npy" else 0.5)
        maskwright.prepare(values, output=folder, workers=1, resume=True)
        assert path.name in caplog.text
        assert "damaged" in caplog.text
        assert tiny_world.prepared_files(folder) == plain_files

    @pytest.mark.parametrize("name", ["clean/part-00001-00000.jsonl.zst", "sample/part-00000.jsonl.zst"])
    def test_in_a_part(self, values, plain_files, unfinished, tmp_path, name):
        folder = shutil.copytree(unfinished, tmp_path / "out")
        flip_bit(folder / "work" / name)
        for marker in (folder / "work").glob("[te]*/task-*.json"):  # so that the parts are read again
            marker.unlink()
        said = rf"{Path(name).name}: is missing or damaged .*; remove it and run the same command again"
        with pytest.raises(DataError, match=said):
            maskwright.prepare(values, output=folder, workers=1, resume=True)
        assert not (folder / "manifest.json").exists()
        (folder / "work" / name).unlink()
        maskwright.prepare(values, output=folder, workers=1, resume=True)
        assert tiny_world.prepared_files(folder) == plain_files

    @pytest.mark.parametrize(
        "name",
        [
            "manifest.json",
            "token_counts.bin",
            "train/shard-00000.tokens",
            "train/shard-00001.documents",
            "validation/shard-00000.tokens",
        ],
    )
    def test_in_a_finished_folder(self, data_folder, tmp_path, name):
        folder = shutil.copytree(data_folder, tmp_path / "data")
        for place in (0, 0.3, 0.7, 0.999):
            flip_bit(folder / name, place)
            with pytest.raises(ShardError, match=f"{Path(name).name}"):
                verify_folder(folder)
            with pytest.raises(ShardError, match=f"{Path(name).name}"):
                open_split(folder, name.split("/")[0] if "/" in name else "train")
            shutil.copy(data_folder / name, folder / name)
        verify_folder(folder)

    def test_in_documents_that_were_kept(self, values, tmp_path):
        maskwright.prepare(values, output=tmp_path / "out", workers=1)
        flip_bit(tmp_path / "out" / "documents" / "part-00001.jsonl.zst")
        with pytest.raises(DataError, match=r"part-00001\.jsonl\.zst: is missing or damaged"):
            list(read_part(tmp_path / "out" / "documents" / "part-00001.jsonl.zst"))


HELD = """
import sys
from maskwright.jobs.preparation.pipeline import Preparation
honest = Preparation.run
def run(self):
    print("held", flush=True)
    sys.stdin.readline()
    return honest(self)
Preparation.run = run
sys.argv = ["maskwright", "prepare", *sys.argv[1:]]
from maskwright.cli.main import main
main()
"""


def test_the_second_of_two_jobs_is_refused_and_the_first_goes_on(
    values, plain_files, write_recipe, tmp_path, command
):
    recipe = write_recipe(values)
    arguments = [sys.executable, "-c", HELD, str(recipe), "-o", str(tmp_path / "out")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(arguments, text=True, **pipes) as first:
        assert first.stdout.readline() == "held\n"
        for flag in ("--resume", "--overwrite", None):
            second = command("prepare", recipe, "-o", "out", *([flag] if flag else []))
            assert second.code == 2
            assert f"out: another maskwright job is writing here (process {first.pid})" in second.err
        _, err = first.communicate("go on\n", timeout=DEADLINE_SECONDS)
    assert first.returncode == 0, err
    assert tiny_world.prepared_files(tmp_path / "out") == plain_files
