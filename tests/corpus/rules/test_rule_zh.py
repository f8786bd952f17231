from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.document import Drop
from maskwright.corpus.rules.zh_characters import ZhCharacters, zh_characters_step
from maskwright.corpus.rules.zh_lines import ZhLines, zh_lines_step
from maskwright.corpus.rules.zh_ngrams import ZhNgrams, zh_ngrams_step
from maskwright.corpus.rules.zh_stop_characters import ZhStopCharacters, zh_stop_characters_step
from maskwright.corpus.rules.zh_symbols import ZhSymbols, zh_symbols_step


def fresh(count, start=0x5000):
    """Different Chinese characters."""
    return "".join(map(chr, range(start, start + count)))


def test_numbers_of_characters():
    step = zh_characters_step(ZhCharacters())
    kept = document(fresh(99) + "。 \n")
    assert step(kept) is kept
    assert step(document(fresh(99) + " ")) == Drop("too_few_characters", "99 characters, at least 100")
    too_long = document("字" * 200_001)
    assert step(too_long) == Drop("too_many_characters", "200001 characters, at most 200000")


@given(st.integers(0, 60), st.integers(0, 60))
def test_two_characters_in_five_are_chinese(han, latin):
    text = document("字 " * han + "a" * latin)
    kept = zh_characters_step(ZhCharacters(min_characters=0))(text) is text
    assert kept == (han > 0 and han / (han + latin) >= 0.4)


def test_the_share_of_chinese_characters_is_said():
    result = zh_characters_step(ZhCharacters(min_characters=0))(document("中文 and more"))
    assert result == Drop("few_han_characters", "0.222 of characters, at least 0.4")


@pytest.mark.parametrize(
    ("sign", "reason"), [("#", "hash_signs"), ("＃", "hash_signs"), ("……", "ellipses"), ("...", "ellipses")]
)
def test_symbols_for_each_character(sign, reason):
    step = zh_symbols_step(ZhSymbols())
    assert step(document(fresh(100) + sign)) == document(fresh(100) + sign)
    result = step(document((fresh(6) + sign) * 3))
    assert isinstance(result, Drop)
    assert result.reason == reason
    assert result.detail.endswith(" a character, at most 0.05")


def test_a_chinese_ellipsis_counts_once():
    text = document(fresh(38) + "……")
    assert zh_symbols_step(ZhSymbols(max_ratio=0.025))(text) is text


@pytest.mark.parametrize(("text", "found"), [("", 0), ("天地玄黃宇宙洪荒", 0), ("的的的", 1)])
def test_too_few_function_characters(text, found):
    expected = Drop("few_stop_characters", f"{found} different function characters, at least 2")
    assert zh_stop_characters_step(ZhStopCharacters())(document(text)) == expected


@given(st.lists(st.sampled_from("甲乙丙丁")), st.integers(0, 5))
def test_function_characters_are_counted_once_each(chosen, least):
    settings = ZhStopCharacters(characters=("甲", "乙", "丙", "甲"), min_distinct=least)
    text = document("".join(chosen))
    assert (zh_stop_characters_step(settings)(text) is text) == (len(set(chosen) - {"丁"}) >= least)


@pytest.mark.parametrize("text", ["我是学生，住在北京。", "這與彼不同，也有其理。"])
def test_both_scripts_have_function_characters(text):
    assert zh_stop_characters_step(ZhStopCharacters())(document(text)) == document(text)


PASSAGE = fresh(30, 0x6000)


@pytest.mark.parametrize("size", [10, 12, 14, 16, 18, 20])
def test_a_repeated_passage_is_found_without_spaces(size):
    off = {name: 1.0 for name in ZhNgrams.model_fields if name != f"max_share_{size}"}
    settings = ZhNgrams(**off)
    text = f"{PASSAGE}。\n{fresh(40)}，{PASSAGE}"
    limit = getattr(settings, f"max_share_{size}")
    assert zh_ngrams_step(settings)(document(text)) == Drop(
        f"duplicate_{size}gram", f"{30 / 102:.3f} of characters, at most {limit:g}"
    )
    assert zh_ngrams_step(ZhNgrams(**{**off, f"max_share_{size}": 0.3}))(document(text)) == document(text)


@pytest.mark.parametrize(("size", "limit"), [(4, "0.256"), (6, "0.201"), (8, "0.171")])
def test_a_frequent_phrase_is_found(size, limit):
    settings = ZhNgrams(**{name: 1.0 for name in ZhNgrams.model_fields if name != f"max_top_{size}"})
    result = zh_ngrams_step(settings)(
        document("".join(PASSAGE[:8] + fresh(4, 0x5000 + 8 * i) for i in range(5)))
    )
    assert result == Drop(f"top_{size}gram", f"{size / 12:.3f} of characters, at most {limit}")


def test_a_repeated_name_is_no_repetition():
    text = "".join(fresh(60, 0x5000 + 60 * i) + "國立臺灣大學文學院" for i in range(20))
    assert zh_ngrams_step(ZhNgrams())(document(text)) == document(text)


@pytest.mark.parametrize("end", ["。", "！", "？", "」", "”", "…", "."])
def test_chinese_marks_end_a_line(end):
    text = document(fresh(20) + end)
    assert zh_lines_step(ZhLines())(text) is text


def test_shapes_of_lines():
    step = zh_lines_step(ZhLines())
    assert step(document(fresh(20))) == Drop("few_punctuated_lines", "0.000 of lines, at least 0.106")
    menu = document("\n".join(["首頁。", "新聞。", "體育。", fresh(20) + "。"]))
    assert step(menu) == Drop("short_lines", "0.750 of lines, at most 0.67")
    assert step(document("\n")) == document("\n")


@given(st.integers(1, 20))
def test_short_means_fewer_characters_than_the_limit(length):
    text = document(fresh(length - 1) + "。")
    assert (zh_lines_step(ZhLines())(text) is text) == (length >= 10)
