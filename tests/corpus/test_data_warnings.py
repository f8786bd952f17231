import copy
import json

import pytest

from maskwright.corpus.config import SourceConfig
from maskwright.corpus.warnings import data_warnings
from maskwright.jobs.prepare_config import PrepareConfig

HEALTHY = {
    "documents_read": 10_000,
    "documents_kept": 9_000,
    "bytes_read": 40_000_000,
    "bytes_kept": 36_000_000,
    "drops": {"too_short": 700, "exact_duplicate": 200, "near_duplicate": 100},
    "repairs": {"invalid_utf8": 3},
    "bad_lines": {},
    "sources": {
        "web": {
            "documents": 6_000,
            "bytes": 24_000_000,
            "documents_read": 7_000,
            "tokens": 6_000_000,
            "repeats": 1.0,
            "drops": {"too_short": 700, "exact_duplicate": 200, "near_duplicate": 100},
        },
        "wiki": {
            "documents": 3_000,
            "bytes": 12_000_000,
            "documents_read": 3_000,
            "tokens": 3_000_000,
            "repeats": 4.0,
            "drops": {},
        },
    },
    "languages": {"en": {"documents": 8_950, "bytes": 35_800_000}, "de": {"documents": 50, "bytes": 200_000}},
    "duplicates": {
        "exact": {"documents": 200},
        "near": {"documents": 100, "largest": [{"size": 12, "kept": "web:a#1", "text": "A page."}]},
    },
    "tokens_by_language": {
        "en": {"tokens": 8_940_000, "bytes_per_token": 4.0, "unknown_share": 0.0, "single_byte_share": 0.01},
        "de": {"tokens": 60_000, "bytes_per_token": 3.3, "unknown_share": 0.01, "single_byte_share": 0.3},
    },
    "bytes_per_token": 4.0,
    "splits": {"train": {"documents": 8_900}, "validation": {"documents": 100, "tokens": 90_000}},
    "longest_document_characters": 300_000,
}


def changed(**paths):
    """The healthy account with some values replaced, addressed as `a__b__c`."""
    audit = copy.deepcopy(HEALTHY)
    for path, value in paths.items():
        *folders, last = path.split("__")
        place = audit
        for folder in folders:
            place = place[folder]
        place[last] = value
    return audit


def test_a_healthy_corpus_gives_no_message():
    assert data_warnings(HEALTHY) == []


CASES = [
    (
        {"sources__web__tokens": 120_000_000},
        "web: has 90.9 % of the tokens of an epoch (2 sources), so the model hardly sees the others; if it "
        "should, add text to them or set mixture.weights",
    ),
    (
        {"sources__wiki__documents": 0},
        "wiki: none of its 3,000 documents is left; look at the samples of what was left out and loosen the "
        "rule that took most",
    ),
    (
        {"sources__wiki__repeats": 4.5},
        "wiki: is repeated 4.5 times in an epoch, and beyond 4 repeats text teaches little that is new; give "
        "it less weight in mixture or add more text like it",
    ),
    (
        {"duplicates__exact__documents": 2_901},
        "duplicates: 30.0 % of 10,000 documents were copies of others and were left out; look whether a "
        "source was given twice or is made from templates",
    ),
    (
        {"duplicates__near__largest": [{"size": 101, "kept": "web:a#1", "text": "All rights\n reserved."}]},
        "web:a#1: stands for 101 documents that are almost the same (1.0 % of all), which begin with “All "
        "rights reserved.”; if that is a menu or a notice, leave such pages out by a rule",
    ),
    (
        {"drops__malformed_json": 1},
        "malformed_json: left out 1 record that could not be read; look whether the files were cut off, "
        "and at text_field",
    ),
    (
        {"drops__invalid_utf8": 7, "bad_lines": {"a": 1, "b": 9, "c": 2, "d": 3, "e": 1}},
        "invalid_utf8: left out 7 records that could not be read (bad lines in all: b has 9, d has 3, "
        "c has 2, and 2 more files); convert the files to UTF-8, or set encoding_errors to replace",
    ),
    (
        {"repairs__invalid_utf8": 101},
        "invalid_utf8: 101 documents (1.0 %) had to be mended and may hold replacement characters; convert "
        "their files to UTF-8",
    ),
    (
        {"drops__digits": 5_001},
        "digits: left out 50.0 % of 10,000 documents; read its samples, and loosen or turn off the rule "
        "if it took text you want",
    ),
    (
        {"sources__wiki__drops": {"few_stop_words": 1_600}},
        "wiki, few_stop_words: left out 53.3 % of 3,000 documents; read its samples, and loosen or turn off "
        "the rule if it took text you want",
    ),
    (
        {"languages__fr": {"bytes": 400_000}},
        "language fr: has 1.1 % of a corpus that is mostly en; if that was not expected, name those "
        "to keep in corpus.rules.language.languages",
    ),
    (
        {"languages__und": {"bytes": 2_000_000}},
        "languages: none could be named for 5.3 % of the text; look whether it is text at all, rather than "
        "code, tables or wrongly decoded bytes",
    ),
    (
        {"tokens_by_language__de__unknown_share": 0.021},
        "language de: 2.1 % of its tokens are unknown, so that text is lost; train the tokenizer on text "
        "like it, or take a byte-level one",
    ),
    (
        {"tokens_by_language__de__single_byte_share": 0.31},
        "language de: 31.0 % of its tokens are single bytes of letters that the vocabulary does not have, so "
        "sequences are long; train the tokenizer on text like it or raise tokenizer.vocab_size",
    ),
    (
        {"tokens_by_language__en__bytes_per_token": 1.99},
        "language en: 1.99 bytes per token, where 3.5 to 5 are usual; raise tokenizer.vocab_size, or take a "
        "tokenizer that was trained on text like this",
    ),
    (
        {"splits__validation__documents": 99},
        "validation: has 99 documents, so its loss will be mostly noise; raise validation_share or add "
        "documents",
    ),
    (
        {"longest_document_characters": 400_000},
        "longest document: has 400,000 characters, 1.1 % of all text; look whether it is many documents in "
        "one (split_documents), or set corpus.max_characters",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), CASES, ids=[message.partition(";")[0] for _, message in CASES]
)
def test_each_fault_gives_its_message_and_no_other(change, message):
    assert data_warnings(changed(**change)) == [message]


@pytest.mark.parametrize(
    "change",
    [
        {"duplicates__exact__documents": 2_900},
        {"duplicates__near__largest": [{"size": 100}]},
        {"repairs__invalid_utf8": 100},
        {"drops__digits": 5_000},
        {"drops__exact_duplicate": 9_000},
        {"longest_document_characters": 360_000},
        {"tokens_by_language__en__bytes_per_token": 2.0},
        {"sources__web__tokens": 108_000_000},
    ],
)
def test_values_at_the_limit_give_none(change):
    assert data_warnings(changed(**change)) == []


def test_an_account_may_be_partial():
    assert data_warnings({}) == []
    for key in HEALTHY:
        assert data_warnings({name: value for name, value in HEALTHY.items() if name != key}) == []
        assert data_warnings({key: HEALTHY[key]}) == []
    for name, part in HEALTHY.items():
        if isinstance(part, dict):
            assert data_warnings({**HEALTHY, name: {}}) == []


def test_the_account_is_not_changed():
    audit = copy.deepcopy(HEALTHY)
    before = json.dumps(audit)
    data_warnings(audit)
    assert json.dumps(audit) == before


def test_one_source_alone_does_not_dominate():
    assert data_warnings(changed(sources={"web": HEALTHY["sources"]["web"]})) == []


def test_a_rule_that_is_named_for_all_is_not_named_again_for_a_source():
    audit = changed(drops__digits=6_000, sources__web__drops={"digits": 6_000})
    assert len(data_warnings(audit)) == 1


def test_a_handful_of_documents_proves_nothing_about_a_rule():
    audit = {"documents_read": 99, "drops": {"digits": 98}}
    assert data_warnings(audit) == []


def test_two_documents_are_no_cluster():
    largest = [{"size": 9, "kept": "a#1", "text": "x"}]
    assert data_warnings({"documents_read": 20, "duplicates": {"near": {"largest": largest}}}) == []


def test_two_languages_side_by_side_are_meant():
    audit = changed(languages={"en": {"bytes": 800}, "zh": {"bytes": 200}})
    assert data_warnings(audit) == []


def test_a_language_of_a_few_documents_says_nothing_of_the_vocabulary():
    row = {"tokens": 900, "bytes_per_token": 1.0, "unknown_share": 0.9, "single_byte_share": 0.9}
    assert data_warnings(changed(tokens_by_language__th=row)) == []


@pytest.mark.parametrize("found", [{}, {"": {"tokens": 1_000, "bytes_per_token": 1.5}}])
def test_bytes_per_token_are_looked_at_without_languages(found):
    messages = data_warnings(changed(tokens_by_language=found, bytes_per_token=1.5))
    assert [message.partition(",")[0] for message in messages] == ["tokens: 1.50 bytes per token"]


def test_chinese_is_not_measured_by_latin_letters():
    row = {"tokens": 9_000_000, "bytes_per_token": 1.8, "unknown_share": 0.0, "single_byte_share": 0.0}
    assert data_warnings(changed(tokens_by_language={"zh": row})) == []


def test_unknown_tokens_are_named_without_a_language():
    row = {"tokens": 1_000, "bytes_per_token": 4.0, "unknown_share": 0.5, "single_byte_share": 0.0}
    (message,) = data_warnings(changed(tokens_by_language={"": row}))
    assert message.startswith("tokens: 50.0 % of its tokens are unknown")


def test_ten_documents_of_one_length_are_no_long_document():
    assert (
        data_warnings({"bytes_kept": 1_000, "documents_kept": 10, "longest_document_characters": 100}) == []
    )


def test_a_language_with_a_source_of_its_own_was_meant():
    fault = changed(languages__zh={"bytes": 1_000_000})
    assert [message.partition(":")[0] for message in data_warnings(fault)] == ["language zh"]
    fault["sources"]["wiki-zh"] = {"documents": 300, "bytes": 1_010_000, "tokens": 300_000}
    assert data_warnings(fault) == []


@pytest.mark.parametrize(
    "setting",
    [
        "corpus.max_characters",
        "corpus.rules.language.languages",
        "mixture.weights",
        "tokenizer.vocab_size",
        "validation_share",
    ],
)
def test_the_settings_that_are_named_exist(setting):
    assert any(setting in message for _, message in CASES)
    config = PrepareConfig
    *folders, last = setting.split(".")
    for name in folders:
        config = config.model_fields[name].annotation
    assert last in config.model_fields


@pytest.mark.parametrize("setting", ["encoding_errors", "split_documents", "text_field"])
def test_the_settings_of_sources_that_are_named_exist(setting):
    assert any(setting in message for _, message in CASES)
    assert setting in SourceConfig.model_fields
