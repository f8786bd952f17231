"""The check against bias of the sampler finds none, but every one that is put in."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from sentence_data import ALL, BOS, library
from shard_helpers import EOS

from maskwright.tokens.formats import FormatConfig, check_samples
from maskwright.tokens.stream import SampleStream

FORMATS = ("windows", *ALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return library(tmp_path_factory.mktemp("library"))[1]


def stream_of(data, name, *, shuffle=True):
    return SampleStream(data, 64, BOS, EOS, 3, shuffle=shuffle, format=FormatConfig(name=name))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_right_stream(data, name, shuffle):
    stream = stream_of(data, name, shuffle=shuffle)
    assert check_samples(stream, 3 * stream.samples_per_epoch, 17) is None
    assert check_samples(stream, 0) is None


def broken(stream, change):
    """The stream with the pieces of each block changed."""
    right = stream.pieces
    stream.pieces = lambda first, count: change(right(first, count))
    return check_samples(stream, stream.samples_per_epoch)


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_that_comes_twice(data, name):
    def twice(pieces):
        for array in (pieces.starts, pieces.lengths):
            array[3] = array[5]
        if pieces.next_labels is not None:
            pieces.next_labels[3] = pieces.next_labels[5]
        pieces.epochs[3] = pieces.epochs[5]
        return pieces

    found = broken(stream_of(data, name), twice)
    assert found is not None
    assert "comes twice; the model would see some text more often than other" in found


@pytest.mark.parametrize("name", FORMATS)
def test_tokens_that_are_lost(data, name):
    def shorter(pieces):
        lengths = pieces.lengths.copy()
        lengths[:, 0] -= lengths[:, 0] > 1
        return replace(pieces, lengths=lengths)

    found = broken(stream_of(data, name), shorter)
    assert found is not None
    assert "tokens, they should have" in found


@pytest.mark.parametrize("name", FORMATS)
def test_samples_that_overlap(data, name):
    found = broken(stream_of(data, name), lambda pieces: replace(pieces, lengths=pieces.lengths + 1))
    assert found is not None
    assert "comes twice" in found or "the sequence length is 64" in found or "the source ends at" in found


def test_a_sample_that_is_too_long(data):
    def longer(pieces):
        return replace(pieces, lengths=pieces.lengths + 63)

    stream = stream_of(data, "doc-sentences")
    longest = int(stream.sample_lengths(0, stream.samples_per_epoch).max())
    assert f" has {longest + 63} tokens, the sequence length is 64" in broken(stream, longer)


def test_a_sample_that_leaves_its_source(data):
    web, _ = data.sources

    def outside(pieces):
        last = pieces.starts[:, 0] + pieces.lengths[:, 0] > web.num_tokens - 64
        last &= pieces.starts[:, 0] < web.num_tokens
        return replace(pieces, starts=np.where(last[:, None], web.num_tokens - 1, pieces.starts))

    assert "the source ends at" in broken(stream_of(data, "windows"), outside)


# Checkpoints hold nothing but how many samples were consumed.
ORDERS = {
    "full-sentences": "af1e5f4b8c18cee578bd5b61f6a4ae12",
    "doc-sentences": "8ac36acb3be210097d6a491ca61db358",
    "segment-pair": "ac88e5d9de16907f1e7261ea794d3c96",
    "sentence-pair": "8ebcbef30b8a3f4d5a0bfaaa95e0fec1",
}


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_a_format_never_changes(data, name):
    pieces = stream_of(data, name).pieces(1000, 3000)
    content = [pieces.starts, pieces.lengths, pieces.epochs]
    content += [] if pieces.next_labels is None else [pieces.next_labels]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a, "<i8").tobytes() for a in content))
    assert digest.hexdigest()[:32] == ORDERS[name]
