"""Bytes per token, unknown and single-byte tokens by language."""

import json

import numpy as np
import pytest
import vocabulary_makers as makers

from maskwright.tokens.token_statistics import TokenStatistics
from maskwright.tokens.tokenizer import Tokenizer


def count(statistics, tokenizer, language, text):
    statistics.add(language, len(text.encode()), tokenizer.encode(text))


def test_shares():
    tokenizer = makers.byte_level()
    statistics = TokenStatistics(tokenizer)
    for text in makers.TEXTS[:5]:
        count(statistics, tokenizer, "en", text)
    count(statistics, tokenizer, "zh", "中文。 A")
    shown = statistics.as_dict()
    assert list(shown) == ["en", "zh"]
    assert shown["zh"] == {
        "tokens": len(tokenizer.encode("中文。 A")),
        "bytes_per_token": 11 / len(tokenizer.encode("中文。 A")),
        "unknown_share": 0.0,
        "single_byte_share": 9 / len(tokenizer.encode("中文。 A")),
    }
    assert shown["en"]["bytes_per_token"] > 1.5
    assert shown["en"]["single_byte_share"] == 0


def test_unknown_words(tmp_path):
    tokenizer = Tokenizer.load(makers.write_bert(tmp_path, do_lower_case=True))
    statistics = TokenStatistics(tokenizer)
    count(statistics, tokenizer, "en", "the xyz ferry")
    assert statistics.as_dict()["en"]["unknown_share"] == pytest.approx(1 / 3)


def test_bytes_that_a_vocabulary_falls_back_to(tmp_path):
    from tokenizers import Tokenizer as Reference
    from tokenizers import models

    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    pieces += [("a", -1.0), *((f"<0x{number:02X}>", -9.0) for number in range(256))]
    reference = Reference(models.Unigram(pieces, unk_id=3, byte_fallback=True))
    tokenizer = Tokenizer(reference.to_str())
    statistics = TokenStatistics(tokenizer)
    count(statistics, tokenizer, "xx", "aé")
    assert statistics.as_dict()["xx"]["single_byte_share"] == pytest.approx(2 / 3)


def test_counts_of_processes_add_up():
    tokenizer = makers.byte_level()
    one, two, whole = (TokenStatistics(tokenizer) for _ in range(3))
    for number, text in enumerate(makers.TEXTS[:10]):
        for statistics in (whole, one if number % 2 else two):
            count(statistics, tokenizer, "en" if number % 3 else "de", text)
    total = TokenStatistics()
    for part in (one, two):
        total.merge(TokenStatistics.from_state(json.loads(json.dumps(part.state()))))
    assert total.as_dict() == whole.as_dict()
    assert total.state() == whole.state()


def test_nothing():
    statistics = TokenStatistics(makers.byte_level())
    assert statistics.as_dict() == {}
    statistics.add("en", 0, np.empty(0, np.uint32))
    assert statistics.as_dict()["en"]["bytes_per_token"] == 0
