"""The stage `clean`: parts of bounded size, copies dropped inside a task, and the keys beside each part."""

from dataclasses import replace
from pathlib import Path

import pytest
from stage_helpers import ONE, config, texts_of, words, write_lines
from stage_helpers import clean as run

from maskwright.core.errors import DataError
from maskwright.corpus import Audit
from maskwright.corpus.plan import InputTask, plan_inputs
from maskwright.corpus.runners import run_stage
from maskwright.corpus.sources import SourceFile
from maskwright.corpus.stages import clean as clean_module
from maskwright.corpus.stages import clean_stage
from maskwright.corpus.stages.clean import bundle_inputs


@pytest.fixture
def paths(tmp_path):
    return [
        write_lines(tmp_path / "a.jsonl", ["one", "two", "one", "three"]),
        write_lines(tmp_path / "b.jsonl", ["four", " ", "two"]),
    ]


def audits(results):
    return [Audit.from_state(result["audit"]) for result in results]


def test_a_task_reads_one_input_and_drops_its_own_copies(paths, tmp_path):
    results, parts = run(config(*paths), tmp_path / "out")
    assert texts_of(tmp_path / "out", parts) == [["one", "two", "three"], ["four", "two"]]
    assert [(part.number, part.source, part.documents) for part in parts] == [(0, "a", 3), (1, "b", 2)]
    assert [dict(audit.drops) for audit in audits(results)] == [{"exact_duplicate": 1}, {"empty": 1}]
    (sample,) = audits(results)[0].drop_samples["exact_duplicate"]
    assert sample == "a:a.jsonl#3: a:a.jsonl#1: one"


def test_without_exact_deduplication_copies_stay(paths, tmp_path):
    _, parts = run(config(*paths, deduplication={"exact": False}), tmp_path / "out")
    assert texts_of(tmp_path / "out", parts)[0] == ["one", "two", "one", "three"]
    assert not list((tmp_path / "out").rglob("*.digests"))


def test_parts_are_closed_at_their_size_and_numbered_in_order(paths, tmp_path):
    _, parts = run(config(*paths), tmp_path / "out", part_bytes=6)
    assert texts_of(tmp_path / "out", parts) == [["one", "two"], ["three"], ["four", "two"]]
    assert [part.number for part in parts] == [0, 1, 2]
    assert [part.text_bytes for part in parts] == [6, 5, 7]


def test_no_part_is_larger_than_the_limit_of_the_stage(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("maskwright.corpus.stages.clean.MAX_PART_BYTES", 6)
    _, parts = run(config(*paths), tmp_path / "out")
    assert len(parts) == 3


def test_each_part_has_the_keys_that_are_asked_for(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [words(0), words(1) + "\n" + words(2)])
    everything = {"exact": True, "near": {}, "lines": {}}
    _, (part,) = run(config(path, deduplication=everything), tmp_path / "out")
    names = {name.name for name in (tmp_path / "out" / "work" / "clean").glob("part-*")}
    assert names == {
        f"part-00000-00000.{suffix}"
        for suffix in ("jsonl.zst", "digests", "bands", "signatures.npy", "lengths.npy", "lines")
    }
    assert part.lines == 3
    assert part.stem == "work/clean/part-00000-00000"


def test_an_input_of_which_nothing_is_left_gives_no_part(paths, tmp_path):
    path = write_lines(tmp_path / "c.jsonl", [" ", ""])
    results, parts = run(config(path, paths[0]), tmp_path / "out")
    assert results[0]["parts"] == []
    assert [part.source for part in parts] == ["a"]
    assert parts[0].path == "work/clean/part-00001-00000.jsonl.zst"


def test_spans_of_a_file_give_its_documents_in_order(tmp_path):
    texts = [f"text number {number}" for number in range(50)]
    path = write_lines(tmp_path / "a.jsonl", texts)
    results, parts = run(config(path), tmp_path / "out", split_bytes=300)
    assert len(results) > 3
    assert [text for part in texts_of(tmp_path / "out", parts) for text in part] == texts


def test_only_changed_inputs_are_read_again(paths, tmp_path):
    run(config(*paths), tmp_path / "out")
    write_lines(paths[1], ["four", "five"])
    stage = clean_stage(
        config(*paths), plan_inputs(config(*paths).sources, 1 << 30), tmp_path / "out", part_bytes=1 << 20
    )
    assert run_stage(stage, ONE).executed == 1


@pytest.mark.parametrize(
    "changed", [{"min_characters": 2}, {"unicode_form": "NFKC"}, {"deduplication": {"lines": {}}}]
)
def test_other_cleaning_does_all_of_it_again(paths, tmp_path, changed):
    run(config(*paths), tmp_path / "out")
    corpus = config(*paths, **changed)
    stage = clean_stage(corpus, plan_inputs(corpus.sources, 1 << 30), tmp_path / "out", part_bytes=1 << 20)
    assert run_stage(stage, ONE).executed == 2


def test_where_the_sources_lie_decides_nothing(paths, tmp_path):
    run(config(*paths), tmp_path / "out")
    moved = tmp_path / "moved"
    moved.mkdir()
    paths = [path.rename(moved / path.name) for path in paths]
    stage = clean_stage(
        config(*paths), plan_inputs(config(*paths).sources, 1 << 30), tmp_path / "out", part_bytes=1 << 20
    )
    assert run_stage(stage, ONE).executed == 0


def test_a_file_that_changes_after_it_was_listed(paths, tmp_path):
    corpus = config(*paths)
    stage = clean_stage(corpus, plan_inputs(corpus.sources, 1 << 30), tmp_path / "out", part_bytes=1 << 20)
    write_lines(paths[0], ["other", "text"])
    with pytest.raises(DataError, match=r"a\.jsonl: .*changed"):
        run_stage(stage, ONE)


@pytest.mark.parametrize(("files", "tasks"), [(3, 3), (2047, 2047), (2048, 1024), (5000, 1250)])
def test_many_small_files_share_tasks(files, tasks):
    inputs = [InputTask(number, 0, "s", "text", SourceFile(Path("a"), "a"), 10) for number in range(files)]
    bundles = bundle_inputs(inputs)
    assert len(bundles) == tasks
    assert [task for bundle in bundles for task in bundle] == inputs


def test_bundles_keep_to_a_source_and_a_size():
    file = SourceFile(Path("a"), "a")
    many = [InputTask(number, number // 3000, "s", "text", file, 1) for number in range(6000)]
    assert all(len({task.source_index for task in bundle}) == 1 for bundle in bundle_inputs(many))
    large = [replace(task, num_bytes=1 << 25) for task in many]
    assert max(len(bundle) for bundle in bundle_inputs(large)) == 2


def test_bundles_give_what_single_tasks_give(tmp_path, monkeypatch):
    texts = [words(number) for number in range(9)]
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"f{number}.txt").write_text(text)
    _, single = run(config(folder), tmp_path / "single")
    monkeypatch.setattr(clean_module, "_TASKS_BEFORE_BUNDLES", 3)
    _, bundled = run(config(folder), tmp_path / "bundled")
    assert texts_of(tmp_path / "single", single) == [[text] for text in texts]
    assert texts_of(tmp_path / "bundled", bundled) == [texts[:3], texts[3:6], texts[6:]]
