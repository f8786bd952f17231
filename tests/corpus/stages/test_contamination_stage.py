"""The stage `contamination`, and what `clean` does with its index."""

import pytest
from stage_helpers import ONE, clean, config, texts_of, words, write_lines

from maskwright.core.errors import DataError
from maskwright.corpus import Audit
from maskwright.corpus.parts import read_part
from maskwright.corpus.runners import run_stage
from maskwright.corpus.stages import contamination_stage

QUESTION = words(7, 20)


def setting(tmp_path, action="drop", question=QUESTION):
    write_lines(tmp_path / "quiz.jsonl", [question, "too short"])
    quiz = {"evaluation": [{"path": str(tmp_path / "quiz.jsonl"), "name": "quiz"}], "action": action}
    path = write_lines(tmp_path / "a.jsonl", [words(1), f"{words(2)} {QUESTION}", words(3)])
    return config(path, contamination=quiz)


def index_of(corpus, folder):
    stage = contamination_stage(corpus.contamination, folder)
    assert stage.num_tasks == 1
    return run_stage(stage, ONE)


def test_documents_with_evaluation_text_are_dropped_and_named(tmp_path):
    corpus = setting(tmp_path)
    (found,) = index_of(corpus, tmp_path).results
    assert found["counts"] == {"quiz": {"used": 1, "ignored": 1}}
    results, parts = clean(corpus, tmp_path, index=found["path"])
    assert texts_of(tmp_path, parts) == [[words(1), words(3)]]
    audit = Audit.from_state(results[0]["audit"])
    assert audit.drops == {"contaminated": 1}
    assert "quiz" in audit.drop_samples["contaminated"][0]


def test_documents_may_be_flagged_instead(tmp_path):
    corpus = setting(tmp_path, action="flag")
    (found,) = index_of(corpus, tmp_path).results
    (result,), (part,) = clean(corpus, tmp_path, index=found["path"])
    flags = ["contaminated" in document.meta for document in read_part(tmp_path / part.path)]
    assert flags == [False, True, False]
    assert result["audit"]["flags"] == {"contaminated": 1}


@pytest.mark.parametrize("characters", [1, 1 << 20])
def test_batches_of_any_size_keep_the_order(tmp_path, monkeypatch, characters):
    monkeypatch.setattr("maskwright.corpus.stages.clean._BATCH_CHARACTERS", characters)
    corpus = setting(tmp_path)
    (found,) = index_of(corpus, tmp_path).results
    _, parts = clean(corpus, tmp_path, index=found["path"])
    assert texts_of(tmp_path, parts) == [[words(1), words(3)]]


def test_other_evaluation_text_is_another_request(tmp_path):
    assert index_of(setting(tmp_path), tmp_path).executed == 1
    assert index_of(setting(tmp_path, action="flag"), tmp_path).executed == 1  # its file was written anew
    corpus = setting(tmp_path, question=words(8, 25))
    assert index_of(corpus, tmp_path).executed == 1
    assert index_of(corpus, tmp_path).executed == 0


def test_an_evaluation_set_that_is_not_there(tmp_path):
    corpus = setting(tmp_path)
    (tmp_path / "quiz.jsonl").unlink()
    with pytest.raises(DataError, match=r"quiz\.jsonl: "):
        contamination_stage(corpus.contamination, tmp_path)
