"""The stages `exact`, `bands`, `clusters` and `lines`: copies in the whole corpus, however it is cut."""

import pytest
from stage_helpers import ONE, clean, config, words, write_lines

from maskwright.corpus.dedup.tables import DROPS, LINE_DROPS, read_table
from maskwright.corpus.runners import run_stage
from maskwright.corpus.stages import bands_stage, clusters_stage, duplicates, exact_stage, lines_stage


def paths_of(stage):
    return [result["path"] for result in run_stage(stage, ONE).results]


def places(folder, paths, dtype=DROPS):
    return [tuple(row)[:4] for row in read_table([folder / path for path in paths], dtype).tolist()]


@pytest.fixture
def finely(monkeypatch):
    """So little memory that every stage has many tasks."""
    monkeypatch.setattr(duplicates, "TASK_BYTES", 1)


def near_drops(folder, corpus, parts, exact=(), request="r"):
    near = corpus.deduplication.near
    edges = paths_of(bands_stage(folder, parts, near, exact, request))
    return run_stage(clusters_stage(folder, parts, near, edges, request), ONE).results[0]


@pytest.mark.parametrize("cut", ["coarsely", "finely"])
def test_of_copies_in_several_parts_the_first_stays(tmp_path, request, cut):
    if cut == "finely":
        request.getfixturevalue("finely")
    rows = [["one", "two", "three"], ["four", "two"], ["two", "one", "five"]]
    files = [write_lines(tmp_path / f"{number}.jsonl", texts) for number, texts in enumerate(rows)]
    _, parts = clean(config(*files), tmp_path)
    stage = exact_stage(tmp_path, parts, "r")
    assert stage.num_tasks == (256 if cut == "finely" else 1)
    assert places(tmp_path, paths_of(stage)) == [(1, 1, 0, 1), (2, 0, 0, 1), (2, 1, 0, 0)]


@pytest.mark.parametrize(
    ("keep", "kept", "dropped"), [("longest", [1, 0], [0, 1]), ("first", [0, 1], [1, 0])]
)
def test_of_similar_documents_one_stays_by_the_rule(tmp_path, keep, kept, dropped):
    first = write_lines(tmp_path / "a.jsonl", [words(0), words(1)])
    second = write_lines(tmp_path / "b.jsonl", [words(1) + " and more", words(2)])
    corpus = config(first, second, deduplication={"near": {"keep": keep}})
    _, parts = clean(corpus, tmp_path)
    found = near_drops(tmp_path, corpus, parts)
    assert found["documents"] == found["clusters"] == 1
    (cluster,) = found["largest"]
    assert (cluster["size"], list(cluster["kept"]), list(map(list, cluster["dropped"]))) == (
        2,
        kept,
        [dropped],
    )
    assert places(tmp_path, [found["path"]]) == [(*dropped, *kept)]


def test_exact_copies_are_no_near_ones(tmp_path):
    files = [write_lines(tmp_path / f"{name}.jsonl", [words(0), words(name)]) for name in (1, 2)]
    corpus = config(*files, deduplication={"near": {}})
    _, parts = clean(corpus, tmp_path)
    exact = paths_of(exact_stage(tmp_path, parts, "r"))
    assert places(tmp_path, exact) == [(1, 0, 0, 0)]
    assert near_drops(tmp_path, corpus, parts, exact)["documents"] == 0
    assert near_drops(tmp_path, corpus, parts, request="other")["documents"] == 1


def test_many_small_tasks_find_the_same_near_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "TASK_BYTES", 300)
    texts = [words(number) for number in range(12)]
    files = [
        write_lines(tmp_path / "a.jsonl", texts),
        write_lines(tmp_path / "b.jsonl", [f"{text} {number}" for number, text in enumerate(texts[:5])]),
    ]
    corpus = config(*files, deduplication={"near": {"num_perm": 16}})
    _, parts = clean(corpus, tmp_path, part_bytes=1000)
    assert len(parts) == 3
    found = near_drops(tmp_path, corpus, parts)
    assert found["documents"] == 5
    assert found["cluster_sizes"]["2"] == 5


def test_of_lines_the_first_stays_unless_its_document_is_dropped(tmp_path):
    notice = "the same long line under every page of all"
    first = [f"{words(0)}\n{notice}", f"{words(1)}\n{notice}"]
    second = [f"{words(1)}\n{notice}", f"{notice}\n{words(2)}"]
    files = [write_lines(tmp_path / f"{n}.jsonl", texts) for n, texts in enumerate((first, second))]
    corpus = config(*files, deduplication={"lines": {}})
    _, parts = clean(corpus, tmp_path)
    exact = paths_of(exact_stage(tmp_path, parts, "r"))
    lines = corpus.deduplication.lines
    table = places(tmp_path, paths_of(lines_stage(tmp_path, parts, lines, exact, "r")), LINE_DROPS)
    assert table == [(0, 1, 1), (1, 1, 0)]
    assert lines_stage(tmp_path, parts, lines, exact, "r").requests == [[0, 256]]


def test_another_corpus_is_another_request(tmp_path):
    _, parts = clean(config(write_lines(tmp_path / "a.jsonl", ["one", "two"])), tmp_path)
    assert run_stage(exact_stage(tmp_path, parts, "r"), ONE).executed == 1
    assert run_stage(exact_stage(tmp_path, parts, "r"), ONE).executed == 0
    assert run_stage(exact_stage(tmp_path, parts, "other"), ONE).executed == 1
