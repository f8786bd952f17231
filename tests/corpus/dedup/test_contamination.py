from __future__ import annotations

import pytest
from dedup_helpers import document, plain_words
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus.dedup import runs as runs_module
from maskwright.corpus.dedup.contamination import (
    ContaminationIndex,
    Match,
    SetCounts,
    check_contamination,
)
from maskwright.corpus.document import Drop

LONG = "The cat sat on the mat while the old dog slept by the fire."  # 14 words
SHORT = "What is the capital city of northern France today?"  # 9 words
CHINESE = "中澤工是一名新潟縣出身的遊戲製作人"
SETS = {"first": [LONG, "too short"], "second": [SHORT, LONG, CHINESE]}


def first_match(text, sets, ngram, min_words):
    """The answer by sets of runs of words, in plain Python."""
    wanted: dict[tuple[str, ...], str] = {}
    for name, members in sets.items():
        for member in members:
            words = plain_words(member)
            if len(words) >= max(ngram, min_words):
                for start in range(len(words) - ngram + 1):
                    wanted.setdefault(tuple(words[start : start + ngram]), name)
            elif len(words) >= min_words:
                wanted.setdefault(tuple(words), name)
    words = plain_words(text)
    for start in range(len(words)):
        found = {
            words_: name for words_, name in wanted.items() if tuple(words[start:][: len(words_)]) == words_
        }
        if found:
            return {Match(name, " ".join(words_)) for words_, name in found.items()}
    return {None}


WORDS = st.lists(st.sampled_from(["a", "B", "c,", "字", "漢字", "\ud800", "é"]), max_size=9).map(" ".join)


@given(
    st.lists(WORDS, max_size=5),
    st.dictionaries(st.sampled_from(["x", "y"]), st.lists(WORDS, max_size=4)),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_finds_what_sets_of_runs_find(texts, sets, ngram, min_words):
    min_words = min(min_words, ngram)
    index = ContaminationIndex.from_texts(sets, ngram, min_words)
    for text, match in zip(texts, index.find(texts), strict=True):
        assert match in first_match(text, sets, ngram, min_words)
    for name, members in sets.items():
        ignored = sum(len(plain_words(member)) < min_words for member in members)
        assert index.counts[name] == SetCounts(len(members) - ignored, ignored)


def test_thirteen_words_in_a_row_whatever_their_dress():
    index = ContaminationIndex.from_texts(SETS)
    words = plain_words(LONG)
    inside = "Before. " + "-".join(words[1:]).upper() + "? After."
    assert index.find([inside]) == [Match("first", " ".join(words[1:]))]
    assert index.find([" ".join(words[:12]), " ".join([*words[:6], "x", *words[6:]])]) == [None, None]
    assert index.counts == {"first": (1, 1), "second": (3, 0)}


def test_short_texts_must_be_found_whole():
    index = ContaminationIndex.from_texts(SETS)
    whole = Match("second", "what is the capital city of northern france today")
    assert index.find(["Q: " + SHORT + " A: Lille"]) == [whole]
    # Its first eight words are looked up; the ninth is missing or another.
    assert index.find([SHORT[:-7], SHORT[:-7] + " now"]) == [None, None]


def test_chinese_characters_are_words():
    index = ContaminationIndex.from_texts(SETS)
    assert index.find(["他說：" + CHINESE[2:15] + "。"]) == [Match("second", " ".join(CHINESE[2:15]))]
    assert index.find([CHINESE[:12] + "x"]) == [None]


def test_runs_do_not_reach_from_one_text_into_the_next():
    index = ContaminationIndex.from_texts(SETS)
    words = plain_words(LONG)
    assert index.find([" ".join(words[:7]), " ".join(words[7:])]) == [None, None]
    # Nor do runs over the border of two evaluation texts count.
    assert index.find([" ".join(words[-6:]) + " " + SHORT[:-7]]) == [None]


def test_equal_hashes_are_not_enough(monkeypatch):
    index = ContaminationIndex.from_texts({"e": ["a b c", "d e f"]}, 3, 3)
    runs = index._runs[0]
    runs.texts[:] = runs.texts[::-1].copy()
    assert index.find(["a b c", "x d e f"]) == [None, None]


def test_the_first_text_that_matches_is_named_among_several():
    sets = {"e": ["one two three four x", "one two three four y"], "f": ["one two three four x"]}
    index = ContaminationIndex.from_texts(sets, 13, 4)
    assert index.find(["one two three four y"]) == [Match("e", "one two three four y")]
    assert index.find(["one two three four x"]) == [Match("e", "one two three four x")]


def test_many_hits_in_many_texts():
    members = [f"text number {number} is here for all to see now" for number in range(500)]
    index = ContaminationIndex.from_texts({"e": members}, 6, 6)
    texts = [f"see {member}" if number % 3 else "nothing" for number, member in enumerate(members)]
    assert [match is not None for match in index.find(texts)] == [bool(number % 3) for number in range(500)]


def test_drops_or_flags():
    index = ContaminationIndex.from_texts(SETS)
    detail = "first: " + " ".join(plain_words(LONG)[:13])
    clean, dirty = document("clean"), document(LONG)
    assert check_contamination([clean, dirty], index, "drop") == [clean, Drop("contaminated", detail)]
    flagged = check_contamination([dirty], index, "flag")[0]
    assert flagged.meta == {"contaminated": detail}
    assert flagged.text == LONG
    assert check_contamination([dirty], index, "drop")[0] == Drop("contaminated", detail)
    assert check_contamination([clean], index, "flag")[0] is clean


def test_an_empty_index_finds_nothing():
    assert ContaminationIndex.from_texts({}).find(["some text", ""]) == [None, None]
    assert ContaminationIndex.from_texts(SETS).find([]) == []


@pytest.mark.parametrize("sets", [SETS, {}, {"e": []}])
def test_saved_and_loaded_it_is_the_same(tmp_path, sets):
    index = ContaminationIndex.from_texts(sets)
    index.save(tmp_path / "index.npz")
    again = ContaminationIndex.load(tmp_path / "index.npz")
    texts = [LONG, SHORT, CHINESE, "clean"]
    assert again.find(texts) == index.find(texts)
    assert (again.ngram, again.counts) == (index.ngram, index.counts)
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "index.npz").read_bytes()


def test_a_damaged_index_is_named(tmp_path):
    path = tmp_path / "index.npz"
    ContaminationIndex.from_texts(SETS).save(path)
    for data in (path.read_bytes()[:-30], b"", b"text"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"index\.npz: is damaged \(.*\); remove it and run the same"):
            ContaminationIndex.load(path)


def test_the_bit_table_may_be_small(monkeypatch):
    monkeypatch.setattr(runs_module, "_BITS_PER_RUN", 0)
    members = [f"{number} b c" for number in range(3000)]
    index = ContaminationIndex.from_texts({"e": members}, 3, 3)
    assert all(index.find(members))
    assert not any(index.find([f"{number} c b" for number in range(3000)]))
