"""World size does not matter: the ranks of a step together read the same run of samples, each sample once."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.keyed import hash64
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream
from maskwright.objectives.step_sizes import StepSizes
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.manifest import Manifest, Split, TokenizerEntry, save_manifest
from maskwright.tokens.shards import EncodedDocuments, open_split, write_array, write_shard
from maskwright.tokens.stream import SampleStream

LENGTH, VOCAB, EOS = 24, 300, 2
WORLDS = (1, 2, 3, 4, 7)


def write_source(folder, number, name, count):
    """A shard of documents of one to nine sentences."""
    rng = np.random.default_rng(number)
    lengths = [rng.integers(1, 20, rng.integers(1, 10)) for _ in range(count)]
    sizes = np.array([sum(one) for one in lengths], np.int64)
    ids = rng.integers(5, 290, sizes.sum()).astype(np.uint32)
    documents = EncodedDocuments(ids, sizes, np.cumsum(np.concatenate(lengths), dtype=np.int64))
    return write_shard(
        folder, "train", number, [documents], vocab_size=VOCAB, eos_id=EOS, source=name, sentences=True
    ).shard


@pytest.fixture(scope="module")
def streams():
    """Samples of one length and of many, of two sources, one of which comes two and a half times an epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = (write_source(folder, 0, "web", 60), write_source(folder, 1, "wiki", 20))
        manifest = Manifest(
            tokenizer=TokenizerEntry(fingerprint="f" * 32, vocab_size=VOCAB),
            dtype="uint16",
            splits={"train": Split(shards=shards, num_text_bytes=1)},
            repeats={"wiki": 2.5},
            token_counts=write_array(folder, "token_counts.bin", np.zeros(VOCAB, np.int64)),
            provenance={},
        )
        save_manifest(folder, manifest)
        data = open_split(folder, "train")
        yield {
            kind: SampleStream(data, LENGTH, 0, EOS, 3, format=FormatConfig(name=kind))
            for kind in ("windows", "full-sentences", "segment-pair")
        }


def rows_of(batches):
    """For each sample of some micro-batches, in order: number, input, labels by place, dropout key."""
    found = []
    for batch in batches:
        labels = np.full(len(batch.ids_N), -1)
        labels[batch.targets_M.numpy()] = batch.labels_M.numpy()
        ends = np.cumsum(batch.lengths)
        for row, sample in enumerate(batch.samples):
            part = slice(ends[row] - batch.lengths[row], ends[row])
            ids = batch.ids_N[part].tolist()
            found.append((sample, ids, labels[part].tolist(), int(batch.dropout.rows[row])))
    return found


@pytest.mark.parametrize("kind", ["windows", "full-sentences", "segment-pair"])
@settings(deadline=None, max_examples=25)
@given(
    by_tokens=st.booleans(),
    sequences=st.integers(1, 17),
    micro=st.integers(1, 9),
    consumed=st.integers(0, 10**9),
)
def test_ranks_together_make_the_step_of_one_process(streams, kind, by_tokens, sequences, micro, consumed):
    samples = streams[kind]
    masker = Masker(MaskingConfig(), 3, VOCAB, VOCAB - 1, (0, 1, 2, 3))

    def steps(rank, world, micro):
        sizes = StepSizes(samples, lambda _: sequences, micro, by_tokens)
        stream = MaskedLMStream(samples, masker, sizes, rank=rank, world_size=world)
        stream.restore({**stream.state(), "consumed": consumed})
        return [rows_of(stream.next_step()) for _ in range(2)], stream.consumed

    expected, behind = steps(0, 1, sequences)
    numbers = [row[0] for step in expected for row in step]
    assert numbers == list(range(consumed, behind))
    for world in WORLDS:
        ranks = [steps(rank, world, micro) for rank in range(world)]
        assert {end for _, end in ranks} == {behind}
        for number in range(2):
            # In the order of the ranks: nothing is lost, repeated, or anywhere else.
            assert [row for found, _ in ranks for row in found[number]] == expected[number]


@given(
    world=st.sampled_from(WORLDS),
    other=st.sampled_from(WORLDS),
    sequences=st.integers(1, 40),
    micro=st.integers(1, 9),
    by_tokens=st.booleans(),
    moved=st.integers(1, 6),
)
def test_a_run_that_changes_its_world_size_goes_on_with_the_same_samples(
    world, other, sequences, micro, by_tokens, moved
):
    """Lengths are made up: what matters here is that no step depends on who reads it."""
    lengths = (hash64(5, np.arange(500)) % LENGTH).astype(np.int64) % LENGTH + 1

    def count_for_budget(first, most):
        ends = np.cumsum(lengths[np.arange(first, first + most + 1) % 500])
        return max(1, int(np.searchsorted(ends, most, side="right")))

    samples = SimpleNamespace(sequence_length=LENGTH, count_for_budget=count_for_budget)
    sizes = StepSizes(samples, lambda consumed: sequences + consumed % 3, micro, by_tokens)
    consumed, read = 0, []
    for step in range(8):
        size, count = world if step < moved else other, sizes.samples_at(consumed)
        for rank in range(size):
            for first, number in sizes.micro_batches(consumed, count, rank, size):
                read += range(first, first + number)
        consumed += count
    assert read == list(range(consumed))
