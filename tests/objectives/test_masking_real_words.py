"""Whole words and spans over prepared data and over RoBERTa's own vocabulary."""

import os
from pathlib import Path

import numpy as np
import pytest
from masking_doubles import Text

from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.masking.guards import check_mask_rate, check_masks
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.words import open_words

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(data_folder):
    tokenizer = Tokenizer.load(data_folder / "tokenizer")
    data = open_split(data_folder, "train")
    return tokenizer, data, open_words(data, tokenizer)


def masker_for(tokenizer, words, **settings):
    return Masker(
        MaskingConfig(**settings), 3, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids, words
    )


@pytest.mark.parametrize("unit", ["word", "span"])
def test_batches_of_prepared_data(prepared, unit):
    tokenizer, data, words = prepared
    masker = masker_for(tokenizer, words, unit=unit)
    positions = np.arange(data.num_tokens, dtype=np.int64)
    ids = data.tokens(0, data.num_tokens)
    whole = masker.mask(ids, positions, 0)
    assert check_mask_rate(int(whole.selected.sum()), whole.expectation()) is None
    starts = words.starts(positions)
    torn = (starts[1:] == starts[:-1]) & (whole.selected[1:] != whole.selected[:-1])
    assert not torn.any()
    assert (starts[1:] == starts[:-1]).any()

    batch = SampleStream(data, 24, tokenizer.bos_id, tokenizer.eos_id, 3).batch(0, 40)
    ids, positions = batch.ids.reshape(-1), batch.positions.reshape(-1)
    found = masker.mask(ids, positions, 0)
    inside = positions >= 0
    assert np.array_equal(found.selected[inside], whole.selected[positions[inside]])
    assert np.array_equal(found.seen[inside], whole.seen[positions[inside]])
    targets = np.flatnonzero(found.selected)
    assert check_masks(masker, ids, positions, found.seen, targets, ids[targets]) is None


@pytest.mark.shared
def test_electroencephalography_in_the_vocabulary_of_roberta():
    folder = Path(os.environ.get("MASKWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "roberta_vocab"
    if not folder.is_dir():
        pytest.skip(f"RoBERTa's vocabulary is not at {folder} (set MASKWRIGHT_SHARED_DATA)")
    tokenizer = Tokenizer.load(folder)
    encoded = tokenizer.reference.encode("The electroencephalography shows it", add_special_tokens=False)
    pieces = encoded.tokens
    assert pieces == ["The", "Ġelectro", "ence", "phal", "ography", "Ġshows", "Ġit"]
    begins = np.array([piece.startswith("Ġ") or not index for index, piece in enumerate(pieces)])
    text = Text(np.array(encoded.ids), begins, np.arange(len(pieces)) == 0)
    for unit in ("word", "span"):
        masker = masker_for(tokenizer, text, unit=unit)
        found = {tuple(masker.select(text.ids, text.positions, epoch)[1:5].tolist()) for epoch in range(100)}
        assert found == {(True,) * 4, (False,) * 4}
