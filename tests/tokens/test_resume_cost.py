"""Reaching a step costs the same wherever it is: what is read and what is called are counted, not timed."""

import sys

import numpy as np
import pytest
from sentence_data import ALL, BOS, library
from shard_helpers import EOS, VOCAB

from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream
from maskwright.objectives.step_sizes import StepSizes
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.words import LOOK_BACK, WordSource

LENGTH, SEQUENCES = 32, 16
NEAR, FAR = (0, 1, 63, 64, 100, 300), (10**3, 10**6, 10**9)


class Cost:
    """Work of a block: tokens asked for, samples looked up, and calls of any function."""

    def __init__(self, stream):
        self._stream, self.tokens, self.reads, self.samples, self.calls = stream, 0, 0, 0, 0
        self._read = stream.samples.data.tokens

    def __enter__(self):
        data, samples = self._stream.samples.data, self._stream.samples

        def read(start, count):
            self.tokens, self.reads = self.tokens + count, self.reads + 1
            return self._read(start, count)

        data.tokens = read
        for _, source in samples.sources:
            object.__setattr__(source, "find", self._counted(source.find))
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def _counted(self, find):
        def found(ranks):
            self.samples += len(ranks)
            return find(ranks)

        return found

    def _count(self, frame, event, argument):
        self.calls += event in ("call", "c_call")

    def __exit__(self, *reason):
        sys.setprofile(self._before)

    def __iter__(self):
        return iter((self.tokens, self.reads, self.samples, self.calls))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sources, one of which comes three times an epoch; a step of 1e3 is far behind the first epoch."""
    folder = tmp_path_factory.mktemp("library")
    library(folder)
    return folder


def make(folder, name, *, by_tokens):
    """A stream that has read nothing yet, as a process has that begins."""
    samples = SampleStream(open_split(folder, "train"), LENGTH, BOS, EOS, 1, format=FormatConfig(name=name))
    masker = Masker(MaskingConfig(), 1, VOCAB, VOCAB - 1, (0, 1, 2, 3))
    return MaskedLMStream(samples, masker, StepSizes(samples, lambda consumed: SEQUENCES, 4, by_tokens))


def cost_of(folder, name, consumed, *, by_tokens):
    stream = make(folder, name, by_tokens=by_tokens)
    with Cost(stream) as cost:
        stream.restore({**stream.state(), "consumed": consumed})
        batches = stream.next_step()
    assert stream.consumed > consumed
    assert sum(len(batch.samples) for batch in batches) == stream.consumed - consumed
    assert batches[0].samples[0] == consumed
    return tuple(cost)


@pytest.mark.parametrize("by_tokens", [False, True])
@pytest.mark.parametrize("name", ["windows", *ALL])
def test_no_step_costs_more_than_the_first_ones(folder, name, by_tokens):
    make(folder, name, by_tokens=by_tokens)  # the index of samples is made once, not by each start
    costs = {
        place: cost_of(folder, name, place * SEQUENCES, by_tokens=by_tokens)
        for place in (*NEAR, *(step + more for step in FAR for more in (0, 1, 777)))
    }
    calls = {place: cost[3] for place, cost in costs.items()}
    for tokens, reads, samples, _ in costs.values():
        assert tokens <= SEQUENCES * LENGTH
        assert reads <= 2 * tokens
        assert samples in (1024, 2048)  # one block of the order, or two where a step lies across
    # How many epochs a block of the order has decides about the rest.
    assert max(calls[place] for place in calls if place not in NEAR) < 2 * min(calls[place] for place in NEAR)


def test_words_and_documents_are_looked_up_at_the_place_alone(folder):
    """Masks of whole words and dropout keys are functions of the place, too."""
    stream = make(folder, "windows", by_tokens=False)
    whole = words_of_five(stream.samples.data)
    masker = Masker(MaskingConfig(unit="word"), 1, VOCAB, VOCAB - 1, (0, 1, 2, 3), whole)
    found = []
    for steps in (0, 10**9):
        stream = MaskedLMStream(stream.samples, masker, stream.sizes)
        stream.restore({**stream.state(), "consumed": steps * SEQUENCES})
        with Cost(stream) as cost:
            stream.next_step()
        found.append(cost.tokens)
    assert max(found) <= SEQUENCES * (2 * LENGTH + 2 * LOOK_BACK)


def words_of_five(data):
    """Words that begin at every fifth id, as a rule that reads the tokens."""

    def begins(first, ends):
        return np.concatenate(
            [
                data.tokens(low, high - low) % 5 == 0
                for low, high in zip(first.tolist(), ends.tolist(), strict=True)
            ]
        )

    return WordSource(data, begins)
