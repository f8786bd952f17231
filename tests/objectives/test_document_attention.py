"""`attention: document`: samples are cut where documents end, and nothing passes a cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.layout import Layout
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import document_lengths, mask_batch
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream, TokenBatch
from maskwright.training.guards import document_pieces

BOS, EOS, MASK, LENGTH = 0, 2, 399, 32


def batch_of(samples, leading=True, trailing=True):
    """Samples of the data's tokens, with specials around them."""
    ids, positions, lengths, place = [], [], [], 0
    for content in samples:
        before, after = [BOS] * leading, [EOS] * trailing
        ids += [*before, *content, *after]
        positions += [*([-1] * leading), *range(place, place + len(content)), *([-1] * trailing)]
        lengths.append(len(before) + len(content) + len(after))
        place += len(content) + 3
    arrays = (np.array(values, np.int64) for values in (ids, positions, lengths))
    numbers = np.arange(len(samples), dtype=np.int64)
    return TokenBatch(*arrays, samples=numbers, epoch=np.zeros_like(numbers))


def cut(batch):
    pieces, rows = document_lengths(batch, EOS)
    return pieces.tolist(), rows.tolist()


def plain_cut(samples, leading, trailing):
    """The same, token by token: a document ends behind its closing id, but not where a sample ends."""
    found = []
    for row, content in enumerate(samples):
        pieces = [leading]
        for place, token in enumerate(content):
            pieces[-1] += 1
            if token == EOS and place + 1 < len(content):
                pieces.append(0)
        pieces[-1] += trailing
        found += [(length, row) for length in pieces]
    return [length for length, _ in found], [row for _, row in found]


content = st.lists(st.sampled_from([EOS, EOS, 7, 8, 9]), min_size=1, max_size=12)


@given(st.lists(content, min_size=1, max_size=6), st.booleans())
def test_samples_are_cut_where_documents_end(samples, trailing):
    batch = batch_of(samples, trailing=trailing)
    pieces, rows = cut(batch)
    assert (pieces, rows) == plain_cut(samples, 1, int(trailing))
    # The guard of the run finds the same cuts in its own way.
    assert document_pieces(batch.ids, batch.positions, batch.lengths.tolist(), EOS) == pieces
    assert np.bincount(rows, weights=pieces).tolist() == batch.lengths.tolist()
    assert min(pieces) >= 1


@pytest.mark.parametrize(
    ("sample", "pieces"),
    [
        ([7, 8, 9], [5]),
        ([7, 8, EOS], [5]),  # the document ends with the sample
        ([7, EOS, 8], [3, 2]),
        ([EOS, 7, 8], [2, 3]),  # the rest of a document: its closing id alone
        ([7, EOS, EOS, 8], [3, 1, 2]),  # a document without a token
        ([EOS], [3]),
        ([EOS, EOS], [2, 2]),
    ],
)
def test_some_cuts(sample, pieces):
    assert cut(batch_of([sample])) == (pieces, [0] * len(pieces))


def test_separators_end_no_document():
    batch = batch_of([[7, EOS, EOS, 8, 9]])
    batch.positions[2:4] = -1  # as between two parts of a sample
    assert cut(batch) == ([7], [0])
    assert document_pieces(batch.ids, batch.positions, batch.lengths.tolist(), EOS) == [7]


def test_two_samples_are_apart_even_without_specials_between_them():
    batch = batch_of([[7, EOS], [8, 9]], leading=False, trailing=False)
    assert cut(batch) == ([2, 2], [0, 1])
    batch = batch_of([[7, 8], [8, EOS, 9]], leading=False, trailing=False)
    assert cut(batch) == ([2, 2, 1], [0, 1, 1])


@pytest.fixture(scope="module")
def make(data_folder):
    samples = SampleStream(open_split(data_folder, "train"), LENGTH, BOS, EOS, 3)
    masker = Masker(MaskingConfig(), 3, 400, MASK, (0, 1, 2, 3, MASK))

    def make_batch(first, count, attention="document"):
        return mask_batch(samples, masker, first, count, None, attention=attention)

    return make_batch


@pytest.fixture(scope="module")
def model():
    config = EncoderConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    found = MaskedLM(config)
    initialize(found, 0, 0.2)
    return found


def encode(model, ids_N, lengths, keys=None):
    with torch.no_grad():
        return model.encode(ids_N, Layout(lengths), keys)


def documents(batch):
    """Slice of each piece among the tokens."""
    ends = np.cumsum(batch.lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, batch.lengths, strict=True)]


def test_only_the_layout_differs_from_a_window(make):
    batch, window = make(0, 12), make(0, 12, "window")
    assert len(batch.lengths) > 12 == len(window.lengths)
    for name in ("ids_N", "targets_M", "labels_M"):
        assert torch.equal(getattr(batch, name), getattr(window, name))
    assert (batch.samples, batch.counts) == (window.samples, window.counts)


def test_a_document_does_not_see_the_tokens_of_another(make, model):
    batch = make(0, 6)
    assert len(batch.lengths) >= 8
    before_ND = encode(model, batch.ids_N, batch.lengths)
    for piece in documents(batch):
        changed_N = batch.ids_N.clone()
        changed_N[piece] = (changed_N[piece] + 11) % 400
        after_ND = encode(model, changed_N, batch.lengths)
        same_N = (after_ND == before_ND).all(1)
        inside_N = torch.zeros(len(same_N), dtype=torch.bool)
        inside_N[piece] = True
        assert same_N[~inside_N].all()
        assert not same_N[inside_N].any()


def test_documents_are_encoded_as_if_each_were_alone(make, model):
    batch, exact = make(0, 6), model.double()
    try:
        together_ND = encode(exact, batch.ids_N, batch.lengths)
        for piece in documents(batch):
            alone_ND = encode(exact, batch.ids_N[piece], (piece.stop - piece.start,))
            assert (together_ND[piece] - alone_ND).abs().max() <= 1e-12
    finally:
        model.float()


def test_each_piece_drops_other_values(make):
    batch = make(0, 60)
    assert len(batch.lengths) > 60
    assert len(set(batch.dropout.rows.tolist())) == len(batch.lengths)
    assert not set(batch.dropout.rows.tolist()) & set(make(60, 60).dropout.rows.tolist())


def test_what_is_dropped_does_not_depend_on_the_split(make, model):
    whole = make(0, 24)
    parts = [make(first, 1) for first in range(24)]
    # There are samples of one document and of several, or nothing is shown.
    assert {1, 2} <= {len(part.lengths) for part in parts}
    assert [length for part in parts for length in part.lengths] == list(whole.lengths)
    assert [key for part in parts for key in part.dropout.rows.tolist()] == whole.dropout.rows.tolist()


def test_a_window_keeps_one_key_a_sample(make):
    window, batch = make(0, 24, "window"), make(0, 24)
    assert len(set(window.dropout.rows.tolist())) == 24
    firsts = np.unique(
        np.searchsorted(np.arange(1, 25) * LENGTH, np.cumsum(batch.lengths)), return_index=True
    )
    assert batch.dropout.rows[firsts[1]].tolist() == window.dropout.rows.tolist()
