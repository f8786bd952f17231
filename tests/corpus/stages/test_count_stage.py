"""The stage `count`: line ends of stretches of a file, so that ids do not depend on how it was cut."""

from stage_helpers import ONE

from maskwright.corpus.runners import run_stage
from maskwright.corpus.sources import find_files
from maskwright.corpus.spans import CountRequest, count_serially
from maskwright.corpus.stages import count_stage


def requests(path, *stretches):
    (file,) = find_files((str(path),))
    return [CountRequest(file, start, stop) for start, stop in stretches]


def test_it_counts_as_one_process_would(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"one\ntwo\n\nfour\n")
    asked = requests(tmp_path / "a.jsonl", (0, 4), (4, 9), (9, 14))
    found = [result["count"] for result in run_stage(count_stage(tmp_path, asked), ONE).results]
    assert found == count_serially(asked) == [1, 2, 1]


def test_nothing_to_count_is_no_task(tmp_path):
    assert run_stage(count_stage(tmp_path, []), ONE).results == []


def test_it_is_done_again_when_the_file_or_the_cut_changes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo\n")
    assert run_stage(count_stage(tmp_path, requests(path, (0, 4), (4, 8))), ONE).executed == 2
    assert run_stage(count_stage(tmp_path, requests(path, (0, 4), (4, 7))), ONE).executed == 1
    path.write_bytes(b"other\nlines\n")
    again = run_stage(count_stage(tmp_path, requests(path, (0, 4), (4, 12))), ONE)
    assert again.executed == 2
    assert [result["count"] for result in again.results] == [0, 2]
