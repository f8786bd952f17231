from __future__ import annotations

import re

import pytest
from rule_helpers import document, real_texts

from maskwright.core.config import apply_overrides, dump_config, parse_config
from maskwright.core.errors import ConfigError, MissingDependencyError
from maskwright.corpus.document import Document, Drop
from maskwright.corpus.normalise import normalise_step
from maskwright.corpus.rules import PRESETS, RULE_ORDER, RulesConfig, rule_steps
from maskwright.corpus.rules.fix_text import FixText, fix_text_step


def rules(*overrides):
    return parse_config(RulesConfig, apply_overrides({}, overrides), "x.yaml")


def passed(steps, text):
    result = document(text)
    for step in steps:
        result = step(result)
        if isinstance(result, Drop):
            return result
    return result


def test_nothing_runs_by_default():
    assert rules().active == ()
    assert rule_steps(rules()) == []


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_rules_run_in_the_stated_order(preset):
    active = rules(f"preset={preset}").active
    assert set(active) == PRESETS[preset]
    assert [RULE_ORDER.index(name) for name in active] == sorted(RULE_ORDER.index(name) for name in active)
    assert len(rule_steps(rules(f"preset={preset}"))) == len(active)


def test_every_rule_has_settings_and_a_step():
    config = RulesConfig(on=RULE_ORDER)
    assert config.active == RULE_ORDER
    assert len(rule_steps(config)) == len(RULE_ORDER)
    assert set(RulesConfig.model_fields) == {"preset", "on", "off", *RULE_ORDER}


def test_every_field_is_described():
    for name in RULE_ORDER:
        settings = RulesConfig.model_fields[name]
        assert settings.description
        assert all(field.description for field in type(settings.default).model_fields.values())


def test_switches_change_the_preset():
    config = rules("preset=light", "on=[mask_phone]", "off=[html, digits]")
    assert config.active == ("bullets", "ellipsis_lines", "duplicate_lines", "mask_phone")


def test_limits_reach_the_steps():
    config = rules("on=[word_count]", "word_count.min_words=3")
    assert passed(rule_steps(config), "two words") == Drop("too_few_words", "2 words, at least 3")


def test_a_saved_config_reads_back():
    config = rules("preset=light", "digits.max_share=0.5")
    import yaml

    assert parse_config(RulesConfig, yaml.safe_load(dump_config(config)), "saved") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["preset=web"], "x.yaml: \"preset\" is 'web', expected 'none', 'light', 'web-en' or 'web-zh'"),
        (["word_counts.min_words=3"], 'x.yaml: unknown key "word_counts"; did you mean "word_count"?'),
        (["word_count.min_word=3"], 'x.yaml: unknown key "word_count.min_word"; did you mean "min_words"?'),
        (["on=[html]", "off=[html]"], "x.yaml: html is in on and in off; take it out of one of them"),
        (
            ["word_count.min_words=3"],
            'x.yaml: word_count is set, but the rule is off (preset "none"); add word_count to on',
        ),
        (
            ["on=[word_count]", "word_count.min_words=9", "word_count.max_words=8"],
            'x.yaml: "word_count": max_words is 8, below min_words 9',
        ),
        (
            ["on=[word_length]", "word_length.min_mean=9", "word_length.max_mean=8.5"],
            'x.yaml: "word_length": max_mean is 8.5, below min_mean 9',
        ),
        (
            ["on=[zh_characters]", "zh_characters.max_characters=8"],
            'x.yaml: "zh_characters": max_characters is 8, below min_characters 100',
        ),
    ],
)
def test_wrong_settings_say_what_is_wrong(overrides, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        rules(*overrides)


def test_an_unknown_rule_is_named():
    with pytest.raises(ConfigError, match=r'^x.yaml: "off.0" is \'bullet\', expected '):
        rules("off=[bullet]")


def test_shares_stay_between_nothing_and_all():
    with pytest.raises(ConfigError, match=r'"digits\.max_share" is 1\.5'):
        rules("on=[digits]", "digits.max_share=1.5")


def test_the_language_of_a_preset_can_be_replaced():
    assert rules("preset=web-zh").languages == ("zh",)
    assert rules("preset=light").languages is None
    config = rules("preset=web-en", "language.languages=[de, fr]")
    assert config.languages == ("de", "fr")


def test_the_unicode_form_reaches_the_rules_that_bring_in_characters():
    assert passed(rule_steps(rules("on=[html]"), "NFKC"), "&#64257;") == document("fi")


MOJIBAKE = "the â€œwordâ€\x9d and cafÃ©"


def test_wrongly_decoded_text_is_repaired_and_nothing_else():
    step = fix_text_step(FixText())
    assert step(document(MOJIBAKE)) == document("the “word” and café")
    plain = document("“curly” ﬁ Ａ &lt; stays")
    assert step(plain) is plain
    assert fix_text_step(FixText(), "NFKC")(document("cafÃ© ﬁ")) == document("café fi")
    assert step(document("\ufeff")) == Drop("empty")


def test_a_missing_ftfy_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)
    with pytest.raises(
        MissingDependencyError, match=r"^ftfy is not installed, and it is needed to repair text"
    ):
        rule_steps(rules("on=[fix_text]"))
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'maskwright[corpus]'")):
        fix_text_step(FixText())


PAGE = """
Home | About
<p>The harbour of the town was built by people who had come with the first ships.</p>
They have kept it open ever since, and many of their children work there to this day.
Write to harbour@town.example.org or look at http://8.8.8.8/ for the hours.
In winter the boats stay inside, because the wind that comes over the bay is too strong.
This site uses cookies to make it better for you.
"""


def test_a_page_in_english_is_cleaned():
    config = rules("preset=web-en", "word_count.min_words=30")
    result = passed([normalise_step(), *rule_steps(config)], PAGE)
    assert isinstance(result, Document)
    assert result.meta == {"language": "en"}
    lines = result.text.split("\n")
    assert lines[0] == "The harbour of the town was built by people who had come with the first ships."
    assert lines[2] == "Write to email@example.com or look at http://192.0.2.1/ for the hours."
    assert len(lines) == 4


@pytest.mark.shared
@pytest.mark.parametrize(
    ("preset", "corpus", "least"),
    [("light", "enwiki-valid", 0.98), ("light", "zhwiki-valid", 0.95), ("web-en", "enwiki-valid", 0.88),
     ("web-zh", "zhwiki-valid", 0.88)],
)  # fmt: skip
def test_an_encyclopedia_mostly_survives_and_comes_out_the_same_twice(preset, corpus, least):
    steps = [normalise_step(), *rule_steps(rules(f"preset={preset}"))]
    results = [passed(steps, text) for _, text in zip(range(300), real_texts(corpus))]  # noqa: B905
    kept = [result for result in results if isinstance(result, Document)]
    assert len(kept) / len(results) >= least
    again = [passed(steps, result.text) for result in kept]
    assert sum(isinstance(result, Drop) for result in again) <= 0.01 * len(kept)
    assert all(
        result.text == one.text
        for result, one in zip(again, kept, strict=True)
        if isinstance(result, Document)
    )
