"""Words of Chinese in characters and in tokens."""

import builtins
import itertools
import sys

import numpy as np
import pytest
import rjieba
from hypothesis import given, settings
from hypothesis import strategies as st
from word_texts import LETTERS, TEXTS, split_at, words_of

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.tokens import segmentation
from maskwright.tokens.alignment import token_characters
from maskwright.tokens.segmentation import make_cutter, mark_words
from maskwright.tokens.tokenizer import Tokenizer

CHINESE = "他说中文分词是自然语言处理的基础，abc 123。南京市长江大桥！\n第2章"
ANY_TEXT = st.lists(st.sampled_from([*LETTERS, "中文", "分词", "基础", "，", "。"]), max_size=40).map("".join)


@pytest.fixture(scope="module")
def tiny():
    """Chinese characters are spread over several tokens."""
    return Tokenizer.train(TEXTS, 280)


@pytest.fixture(scope="module")
def wordpiece():
    return Tokenizer.train([CHINESE, *TEXTS], 400, "wordpiece")


def chinese_words(cut):
    """The words that a cut text tells, each to where the next begins or the run ends."""
    kinds = segmentation._is_chinese(cut.text)
    words = []
    for start in cut.begins.tolist():
        stop = start + 1
        while stop < len(cut.text) and kinds[stop] and stop not in cut.begins:
            stop += 1
        words.append(cut.text[start:stop])
    return words


def words_in(tokenizer, cut):
    """Words of a cut text as tokens tell them, as text."""
    ids, counts = tokenizer.encode_batch([cut.text])
    begins = mark_words(tokenizer, ids, counts, [cut])
    characters = [*token_characters(tokenizer, ids, cut.text)[begins].tolist(), len(cut.text)]
    return [cut.text[start:stop] for start, stop in itertools.pairwise(characters)]


def word_list(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jieba():
    cut = make_cutter("jieba")(CHINESE)
    assert cut.text == CHINESE
    assert chinese_words(cut) == [
        *("他", "说", "中文", "分词", "是", "自然语言", "处理", "的", "基础"),
        *("南京市", "长江大桥", "第", "章"),
    ]


def test_a_list_alone(tmp_path):
    path = word_list(tmp_path, "自然语言处理\n\n中文 3\n分词\t7 n\r\n长江大桥\n南京市\n")
    assert chinese_words(make_cutter("dictionary", path)(CHINESE)) == [
        *("他", "说", "中文", "分词", "是", "自然语言处理", "的", "基", "础"),
        *("南京市", "长江大桥", "第", "章"),
    ]


def test_frequencies_decide(tmp_path):
    bare = word_list(tmp_path, "研究\n研究生\n生命\n")
    cutter = make_cutter("dictionary", bare)
    weighed = word_list(tmp_path, "研究 1000\n研究生 1\n生命 1000\n")
    assert chinese_words(make_cutter("dictionary", weighed)("研究生命")) == ["研究", "生命"]
    assert len(chinese_words(cutter("研究生命"))) == 2


def test_words_that_jieba_gets_to_know(tmp_path):
    assert "中文分词" not in chinese_words(make_cutter("jieba")(CHINESE))
    path = word_list(tmp_path, "\ufeff中文分词\n")
    assert "中文分词" in chinese_words(make_cutter("jieba", path)(CHINESE))
    assert "中文分词" not in chinese_words(make_cutter("jieba")(CHINESE))


def test_a_changed_list_is_read_again(tmp_path):
    before = make_cutter("dictionary", word_list(tmp_path, "中文\n"))
    after = make_cutter("dictionary", word_list(tmp_path, "分词\n"))
    assert chinese_words(before("中文分词")) == ["中文", "分", "词"]
    assert chinese_words(after("中文分词")) == ["中", "文", "分词"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x2d\x4e", r"words\.txt: is not UTF-8 \(.*convert the list of words"),
        ("中文\n分词 often\n", r"words\.txt:2: 'often' is no frequency, expected a word and perhaps a whole"),
        ("\n \n", r"words\.txt: holds no words; give a list with one word a line"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        make_cutter("dictionary", word_list(tmp_path, content))


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"words\.txt: no such file"):
        make_cutter("jieba", tmp_path / "words.txt")


def test_spaces_are_borders_and_are_taken_out():
    cut = make_cutter("spaces")("他 说 hello 中文 分词 是 基础 ， see you 123 。\n第 2 章  两个")
    assert cut.text == "他说hello中文分词是基础，see you 123。\n第2章  两个"
    assert chinese_words(cut) == ["他", "说", "中文", "分词", "是", "基础", "第", "章", "两个"]
    plain = make_cutter("spaces")("only English here")
    assert (plain.text, plain.begins.tolist()) == ("only English here", [])


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_spaces_lose_nothing_else(text):
    cut = make_cutter("spaces")(text)
    assert cut.text.replace(" ", "") == text.replace(" ", "")
    assert (np.diff(cut.begins) > 0).all()
    assert segmentation._is_chinese(cut.text)[cut.begins].all()


def test_tokens_of_chinese_words(tiny, wordpiece):
    jieba = make_cutter("jieba")
    expected = [
        *("他", "说", "中文", "分词", "是", "自然语言", "处理", "的", "基础", "，", "abc", " 123", "。"),
        *("南京市", "长江大桥", "！", "\n", "第", "2", "章"),
    ]
    assert words_in(tiny, jieba(CHINESE)) == expected
    # Its tokens begin behind white space.
    assert [word.strip() for word in words_in(wordpiece, jieba(CHINESE))] == [
        word.strip() for word in expected if word.strip()
    ]


def test_a_space_stays_with_the_word_behind_it(tiny):
    assert words_in(tiny, make_cutter("jieba")("see 中文分词")) == ["see", " 中文", "分词"]


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=4))
def test_only_chinese_is_touched(tiny, texts):
    jieba = make_cutter("jieba")
    cuts = [jieba(text) for text in texts]
    ids, counts = tiny.encode_batch(texts)
    begins = mark_words(tiny, ids, counts, cuts)
    assert len(begins) == len(ids)
    for text, row, flags in zip(
        texts, np.split(ids, np.cumsum(counts)[:-1]), np.split(begins, np.cumsum(counts)[:-1]), strict=False
    ):
        ruled, found = words_of(tiny, text), [tiny.decode(piece) for piece in split_at(row, flags)]
        assert "".join(found) == "".join(ruled)
        if not segmentation._is_chinese(text).any():
            assert found == ruled


def test_ids_of_another_text(tiny, wordpiece):
    cut = make_cutter("jieba")("中文分词")
    ids, counts = wordpiece.encode_batch(["中文分词 基础"])
    with pytest.raises(DataError, match="'中文分词': has 4 tokens, 6 were given; encode it with the same"):
        mark_words(wordpiece, ids, counts, [cut])


def test_the_library_is_missing(monkeypatch):
    segmentation._library.cache_clear()
    honest = builtins.__import__

    def without(name, *arguments, **options):
        if name == "rjieba":
            raise ImportError(name)
        return honest(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "rjieba")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MissingDependencyError,
        match=r"rjieba is not installed, and it is needed to cut Chinese into words; install it with: "
        r"pip install 'maskwright\[corpus\]'",
    ):
        make_cutter("jieba")
    assert rjieba.__name__ == "rjieba"
