from __future__ import annotations

import gzip
import pickle

import pytest
from flaky_server import flaky_server

from maskwright.core.errors import DataError
from maskwright.corpus import READERS, Audit, SourceConfig, plan
from maskwright.corpus.local_docs import environment_fingerprint
from maskwright.corpus.plan import plan_inputs
from maskwright.corpus.readers import ReadOptions
from maskwright.corpus.sources import Span
from maskwright.corpus.spans import count_serially, cut_rows

LINES = b"".join(b'{"text": "%d"}\n' % number for number in range(100))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jsonl", "b.csv", "c.tsv", "d.txt", "e.md"):
        (tmp_path / name).write_bytes(LINES)
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(LINES))
    return tmp_path


def pieces(tasks):
    found = {}
    for task in tasks:
        found.setdefault(task.file.label, []).append(task)
    return {label: len(group) for label, group in found.items()}


def test_only_files_of_lines_are_cut(folder):
    whole = {"a.jsonl": 1, "b.csv": 1, "c.tsv": 1, "d.txt": 1, "e.md": 1, "f.jsonl.gz": 1}
    source = SourceConfig(path=str(folder))
    assert pieces(plan_inputs([source], len(LINES))) == whole
    cut = {**whole, "a.jsonl": 3, "c.tsv": 3}
    assert pieces(plan_inputs([source], len(LINES) // 3 + 1)) == cut
    by_line = SourceConfig(path=str(folder), split_documents="block")
    assert pieces(plan_inputs([by_line], len(LINES) // 3 + 1)) == {**cut, "d.txt": 3, "e.md": 3}


def test_tasks_are_numbered_and_know_their_size_and_identity(folder):
    sources = [SourceConfig(path=str(folder / "a.jsonl")), SourceConfig(path=str(folder / "b.csv"))]
    tasks = plan_inputs(sources, 1000)
    assert [task.number for task in tasks] == list(range(len(tasks)))
    assert [task.source_index for task in tasks] == [0, 0, 1]
    assert [task.num_bytes for task in tasks] == [1000, len(LINES) - 1000, len(LINES)]
    status = (folder / "a.jsonl").stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    first = LINES[:1000].count(b"\n") + 2
    assert tasks[1].identity == ["a", "a.jsonl", version, "jsonl", [1000, len(LINES), first]]
    assert tasks[2].identity[4] is None
    assert pickle.loads(pickle.dumps(tasks)) == tasks


def test_counting_can_be_given_away(folder):
    asked = []

    def count(requests):
        asked.extend(requests)
        return count_serially(requests)

    source = SourceConfig(path=str(folder))
    assert plan_inputs([source], 500, count=count) == plan_inputs([source], 500)
    assert [(one.file.label, one.start, one.stop) for one in asked] == [
        (label, start, stop) for label in ("a.jsonl", "c.tsv") for start, stop in [(0, 499), (499, 999)]
    ]


def test_a_format_may_bring_its_own_marks(folder, monkeypatch):
    monkeypatch.setitem(
        plan.SPLITTERS, "csv", lambda file, split_bytes: cut_rows([400, 700, 390], split_bytes)
    )
    tasks = plan_inputs([SourceConfig(path=str(folder / "b.csv"))], 1000)
    assert len(LINES) == 1490
    assert [(task.file.span, task.num_bytes) for task in tasks] == [(Span(0, 2), 1100), (Span(2, 3), 390)]
    monkeypatch.setitem(plan.SPLITTERS, "csv", lambda file, split_bytes: [(Span(0, 1), 5)])
    (task,) = plan_inputs([SourceConfig(path=str(folder / "b.csv"))], 1000)
    assert task.file.span is None


def test_local_docs_are_one_task_named_by_the_environment():
    (task,) = plan_inputs([SourceConfig(path="local-docs")], 1000)
    assert task.identity == ["local-docs", "local-docs", environment_fingerprint(), "local-docs", None]
    assert task.num_bytes == 0


def test_a_span_has_at_least_one_byte(folder):
    with pytest.raises(ValueError, match="split_bytes is 0, expected at least 1"):
        plan_inputs([SourceConfig(path=str(folder))], 0)


def test_a_file_that_vanishes_while_it_is_planned_is_named(folder):
    def count(requests):
        (folder / "a.jsonl").unlink()
        return count_serially(requests)

    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(No such file"):
        plan_inputs([SourceConfig(path=str(folder))], 500, count=count)


@pytest.mark.parametrize("ranges", [True, False])
def test_remote_files_are_cut_where_the_server_knows_ranges(ranges, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with flaky_server() as server:
        server.files["/x.jsonl"], server.ranges = LINES, ranges
        tasks = plan_inputs([SourceConfig(path=server.url("/x.jsonl"))], 500)
    firsts = [task.file.span and task.file.span.first_line for task in tasks]
    expected = [1, LINES[:499].count(b"\n") + 2, LINES[:999].count(b"\n") + 2]
    assert firsts == (expected if ranges else [None])


def test_parquet_is_cut_into_row_groups(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"text": [f"text {number} " + "word " * (number % 7) for number in range(1000)]})
    parquet.write_table(table, path, row_group_size=100)
    source = SourceConfig(path=str(path), name="s")
    tasks = plan_inputs([source], 8000)
    assert len(tasks) > 3
    assert sum(task.num_bytes for task in tasks) <= path.stat().st_size
    options = ReadOptions("s")
    parts = [one for task in tasks for one in READERS["parquet"](task.file, options, Audit())]
    (whole,) = plan_inputs([source], 1 << 30)
    assert parts == list(READERS["parquet"](whole.file, options, Audit()))
