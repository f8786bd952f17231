"""Learning a vocabulary: the same one in every process, bounded, for languages with and without spaces."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import vocabulary_makers as makers

from maskwright.core.errors import TokenizerError
from maskwright.tokens import train
from maskwright.tokens.tokenizer import Tokenizer

WORDS = ["机器", "学习", "语言", "模型", "参考", "文献", "中国", "北京市", "的", "了", "在"]


def chinese(number, length=400):
    chance = random.Random(number)
    return "".join(chance.choice([*WORDS, "，", "。"]) for _ in range(length))


CHINESE = [chinese(number) for number in range(20)]
PROGRAM = """
import sys
import vocabulary_makers as makers, test_train
from maskwright.tokens.tokenizer import Tokenizer
texts = [*makers.TEXTS, *test_train.CHINESE]
print(Tokenizer.train(texts, 420, sys.argv[1]).fingerprint)
"""


@pytest.mark.parametrize("kind", ["byte-level-bpe", "wordpiece"])
def test_every_process_learns_the_same(kind):
    expected = Tokenizer.train([*makers.TEXTS, *CHINESE], 420, kind).fingerprint
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(["tests", str(Path("tests") / "tokens")])
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PROGRAM, kind]
        found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected


def test_words_are_learned_from_text_without_spaces():
    tokenizer = Tokenizer.train(iter(CHINESE), 330)
    entries = {tokenizer.decode([number]) for number in range(261, tokenizer.vocab_size)}
    assert {"机器", "学习"} <= entries
    text = chinese(99)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(text.encode()) / len(ids) > 3


def test_a_large_sample_is_thinned_evenly(monkeypatch):
    sample = train.Sample(CHINESE)
    whole = [piece for pieces in sample.pieces() for piece in pieces]
    assert sum(map(len, train._RUN.findall("".join(whole)))) == sample.unspaced_characters
    assert max(map(len, train._RUN.findall("\n".join(whole)))) == train._PIECE
    monkeypatch.setattr(train, "MAX_UNSPACED_CHARACTERS", sample.unspaced_characters // 3)
    thin = [piece for pieces in sample.pieces() for piece in pieces]
    runs = [piece for piece in whole if train._RUN.fullmatch(piece)]
    assert [piece for piece in thin if train._RUN.fullmatch(piece)] == runs[::4]
    # What is written with spaces stays whole.
    assert [piece for piece in thin if not train._RUN.search(piece)] == [
        piece for piece in whole if not train._RUN.search(piece)
    ]
    assert Tokenizer.train(CHINESE, 300).fingerprint == Tokenizer.train(CHINESE, 300).fingerprint


def test_endless_words_are_cut():
    sample = train.Sample(["x" * 1000, "a b", "y" * 64, " " + "z" * 65])
    pieces = [piece for pieces in sample.pieces() for piece in pieces]
    assert max(map(len, pieces)) == 65  # a space before 64 letters
    assert "".join(pieces) == "x" * 1000 + "a b" + "y" * 64 + " " + "z" * 65
    assert Tokenizer.train(["x" * 200_000, "a b"], 300).vocab_size <= 300


def test_half_a_pair_in_the_sample_does_no_harm():
    assert Tokenizer.train(["a b \ud83d"], 270).vocab_size <= 270


def test_wordpiece_takes_chinese_characters_one_by_one():
    tokenizer = Tokenizer.train([*makers.TEXTS, *CHINESE], 400, "wordpiece")
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)
    roles = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id)
    assert roles == (0, 1, 2, 3, 4)
    assert tokenizer.vocab_size <= 400
    entries = tokenizer.reference.get_vocab()
    assert "##机" not in entries
    assert [tokenizer.token_text(i) for i in tokenizer.encode("机器 学习")] == list("机器学习")
    assert "the" in entries
    assert tokenizer.encode("The").tolist() == tokenizer.encode("the").tolist()


def test_wordpiece_with_capital_letters():
    tokenizer = Tokenizer.train(makers.TEXTS, 300, "wordpiece", lowercase=False)
    assert tokenizer.encode("The").tolist() != tokenizer.encode("the").tolist()
    assert "The" in tokenizer.reference.get_vocab()


def test_rare_characters_are_unknown_to_a_small_wordpiece_vocabulary():
    texts = [*makers.TEXTS, "".join(map(chr, range(0x4E00, 0x4E00 + 500)))]
    tokenizer = Tokenizer.train(texts, 200, "wordpiece")
    assert tokenizer.vocab_size == 200
    singles = [token for token in tokenizer.reference.get_vocab() if len(token.removeprefix("##")) == 1]
    assert len(singles) <= 100
    assert tokenizer.encode("\u4ff0").tolist() == [tokenizer.unk_id]


def test_a_wordpiece_vocabulary_that_is_too_small():
    with pytest.raises(TokenizerError, match="vocab_size is 31, expected at least 32"):
        Tokenizer.train(makers.TEXTS, 31, "wordpiece")
