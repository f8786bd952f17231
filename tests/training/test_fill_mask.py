"""Masks filled by us and by transformers, from the same exported folder."""

import pytest
import torch

from maskwright.core.errors import DataError
from maskwright.training.fill_mask import FillMaskPredictor


@pytest.fixture(scope="module")
def theirs(pretrained):
    transformers = pytest.importorskip("transformers")
    folder = pretrained / "export"
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model


@pytest.fixture(scope="module")
def predictor(pretrained):
    return FillMaskPredictor(pretrained / "export", num_guesses=2)


@pytest.mark.parity
@pytest.mark.parametrize(
    "text",
    [
        "The <mask> captain loads the net.",
        "The gardener waters the<mask>",
        "A rose  \n <mask>, then <mask><mask>!",
        "<mask>",
    ],
)
def test_masks_are_filled_alike(pretrained, theirs, text):
    tokenizer, model = theirs
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**encoded).logits[0]
    places = encoded["input_ids"][0] == tokenizer.mask_token_id
    best = logits[places].softmax(-1).topk(5)
    (answer,) = FillMaskPredictor(pretrained / "export").predict([text])
    assert len(answer["fills"]) == text.count("<mask>")
    for fills, ids, shares in zip(answer["fills"], best.indices, best.values, strict=True):
        assert [fill["token"] for fill in fills] == [tokenizer.decode([number]) for number in ids]
        assert [fill["probability"] for fill in fills] == pytest.approx(shares.tolist(), rel=1e-4)


@pytest.mark.parity
def test_the_length_and_the_config_are_told(theirs):
    tokenizer, model = theirs
    assert tokenizer.model_max_length == 64
    assert model.config.architectures == ["RobertaForMaskedLM"]
    assert model.config.vocab_size == len(tokenizer)


def test_shares_are_sorted(predictor):
    (answer,) = predictor.predict(["The <mask> is hot."])
    (fills,) = answer["fills"]
    assert answer["text"] == "The <mask> is hot."
    assert len(fills) == 2
    assert fills[0]["probability"] >= fills[1]["probability"] > 0


def test_no_mask(predictor):
    with pytest.raises(
        DataError, match="'nothing here': has no <mask>; write <mask> where a word is missing"
    ):
        predictor.predict(["The <mask>", "nothing here"])


def test_too_long(predictor):
    with pytest.raises(DataError, match="has 203 tokens, the model takes 64; shorten it"):
        predictor.predict(["<mask>" + "x9" * 100])
