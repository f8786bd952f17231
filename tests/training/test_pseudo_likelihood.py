"""Pseudo-log-likelihood against a slow computation with `transformers`, and what must not change it."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_world
from maskwright.core.errors import DataError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.hf import load_encoder_config, load_weights
from maskwright.model.layout import Layout
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.evaluation.likelihood import (
    EncodedText,
    PseudoLikelihood,
    encode_texts,
    encode_windows,
    pseudo_log_likelihood,
    split_long,
)

MASK, LONGEST = 49, 24
TEXTS = [
    "The gardener waters the thorny rose before it rains.",
    "Unwatered hedges, replanted; nobody knows why!",
    "a",
    "The captain steers the rusty ferry with great care. The gull follows.",
]


def tiny_model(vocab_size=50, seed=3):
    config = EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LONGEST + 2,
    )
    model = MaskedLM(config)
    initialize(model, seed=seed, std=0.3)
    return model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer(corpus_file):
    texts = [tiny_world.text(tiny_world.random.Random(1), "garden", 200)]
    return Tokenizer.train(texts, 300)


def random_text(chance, length):
    ids = np.concatenate([[0], chance.integers(5, 49, length), [2]])
    return EncodedText(ids, np.array([False, *[True] * length, False]))


@pytest.mark.parity
@pytest.mark.parametrize("words", [False, True], ids=["token", "word-l2r"])
@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_a_slow_computation_with_transformers(tmp_path, tokenizer, words, batch_tokens):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=90,
        type_vocab_size=1,
        initializer_range=0.3,
    )
    reference = transformers.RobertaForMaskedLM(config).eval()
    reference.save_pretrained(tmp_path)
    shape, _ = load_encoder_config(tmp_path)
    ours = MaskedLM(shape)
    load_weights(ours, tmp_path)

    def slow(text):
        encoded = tokenizer.reference.encode(text, add_special_tokens=False)
        ids, total = [0, *encoded.ids, 2], 0.0
        for place in range(1, len(ids) - 1):
            seen = list(ids)
            for later in range(place, len(ids) - 1):
                if later == place or (words and encoded.word_ids[later - 1] == encoded.word_ids[place - 1]):
                    seen[later] = tokenizer.mask_id
            with torch.no_grad():
                logits = reference(torch.tensor([seen])).logits[0, place]
            total += logits.double().log_softmax(-1)[ids[place]].item()
        return total, len(ids) - 2

    texts = encode_texts(tokenizer, TEXTS, words=words)
    found = pseudo_log_likelihood(ours, texts, tokenizer.mask_id, batch_tokens)
    sums, counts = zip(*map(slow, TEXTS), strict=True)
    assert found.counts.tolist() == list(counts)
    assert (np.abs(found.sums - sums) / counts).max() <= 1e-5
    reference.double()
    exact = pseudo_log_likelihood(ours.double(), texts, tokenizer.mask_id, batch_tokens)
    sums, counts = zip(*map(slow, TEXTS), strict=True)
    assert np.abs(exact.sums - sums).max() <= 1e-9
    assert found.perplexity == pytest.approx(math.exp(-sum(sums) / sum(counts)), rel=1e-5)


def test_words_make_a_difference_where_they_have_several_tokens(tokenizer):
    model = tiny_model(tokenizer.vocab_size)
    token, word = (
        pseudo_log_likelihood(
            model,
            split_long(encode_texts(tokenizer, TEXTS, words=words), LONGEST),
            tokenizer.mask_id,
        )
        for words in (False, True)
    )
    assert (token.counts == word.counts).all()
    assert (token.sums != word.sums).any()
    (single,) = np.flatnonzero(token.counts == 1)  # its word has no other token
    assert token.sums[single] == pytest.approx(word.sums[single])


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, LONGEST - 2), min_size=1, max_size=6),
    batch_tokens=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_neither_batches_nor_order_matter(lengths, batch_tokens, seed):
    model, chance = tiny_model(), np.random.default_rng(seed)
    texts = [random_text(chance, length) for length in lengths]
    together = pseudo_log_likelihood(model, texts, MASK, batch_tokens)
    alone = [pseudo_log_likelihood(model, [text], MASK) for text in texts]
    turned = pseudo_log_likelihood(model, texts[::-1], MASK, batch_tokens)
    assert together.sums == pytest.approx([one.sums[0] for one in alone], abs=1e-4)
    assert together.sums == pytest.approx(turned.sums[::-1], abs=1e-4)
    assert together.counts.tolist() == lengths


def test_the_answer_does_not_see_the_hidden_token(model):
    # If the token were visible anywhere, its own identity would change what is predicted elsewhere.
    chance = np.random.default_rng(0)
    text = random_text(chance, 1)
    scores = []
    for token in range(5, 49):
        ids = text.ids.copy()
        ids[1] = token
        scores.append(pseudo_log_likelihood(model, [EncodedText(ids, text.scored)], MASK).sums[0])
    with torch.no_grad():
        hidden = model.encoder(torch.tensor([0, MASK, 2]), Layout([3]))
        expected = model.logits(hidden[1:2]).log_softmax(-1)[0, 5:49]
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_one_large_text_is_computed_in_pieces_of_the_budget(model):
    seen = []
    hook = model.encoder.register_forward_hook(lambda part, given, result: seen.append(len(given[0])))
    try:
        pseudo_log_likelihood(model, [random_text(np.random.default_rng(1), 22)] * 3, MASK, 120)
    finally:
        hook.remove()
    assert max(seen) <= 120
    assert sum(seen) == 3 * 22 * 24


def test_special_tokens_inside_are_not_scored(tokenizer):
    (window,) = encode_windows(tokenizer, [np.array([0, 10, 11, 2, 12, 2])])
    assert window.scored.tolist() == [False, True, True, False, True, False]
    assert encode_texts(tokenizer, []) == []


def test_a_text_without_tokens_has_no_say():
    found = pseudo_log_likelihood(tiny_model(), [EncodedText(np.array([0, 2]), np.zeros(2, bool))], MASK)
    assert found.sums.tolist() == [0.0]
    assert found.perplexity == 1.0
    assert PseudoLikelihood(np.array([-4e5]), np.array([1])).perplexity == pytest.approx(math.exp(700))


def test_long_texts_are_cut_and_nothing_is_lost(tokenizer):
    texts = encode_texts(tokenizer, TEXTS, words=True)
    pieces = split_long(texts, 10)
    assert max(len(piece.ids) for piece in pieces) == 10
    assert len(pieces) > len(texts)
    for piece in pieces:
        assert (piece.ids[0], piece.ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        assert len(piece.words) == len(piece.scored) == len(piece.ids)
    inner = np.concatenate([piece.ids[1:-1] for piece in pieces])
    assert inner.tolist() == np.concatenate([text.ids[1:-1] for text in texts]).tolist()
    assert split_long(texts, 500) == texts


def test_words_that_cannot_be_told():
    specials = [[name, 0.0] for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    pieces = [[letter, -5.0] for letter in "abcdefghijklmnopqrstuvwxyz </>"]
    definition = {"model": {"type": "Unigram", "unk_id": 3, "vocab": specials + pieces}}
    tokenizer = Tokenizer(json.dumps({"version": "1.0", **definition}))
    assert len(encode_texts(tokenizer, ["the </s> rose"])) == 1
    with pytest.raises(DataError, match=r"'the </s> rose': spells out a special token, .*set scoring=token"):
        encode_texts(tokenizer, ["the </s> rose"], words=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    texts = [random_text(np.random.default_rng(4), 12)]
    exact = pseudo_log_likelihood(tiny_model(), texts, MASK).sums[0]
    found = pseudo_log_likelihood(tiny_model().to(dtype), texts, MASK).sums[0]
    assert found == pytest.approx(exact, rel=0.05 if dtype == torch.bfloat16 else 1e-5)
