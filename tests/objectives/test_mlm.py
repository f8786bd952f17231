"""Batches of the masked-language-model objective: independent of how a step is cut."""

import numpy as np
import pytest
import torch

from maskwright.core.errors import CheckpointError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream, fixed_batches, mask_batch, masked_lm_loss
from maskwright.objectives.step_sizes import StepSizes
from maskwright.tokens.shards import TokenData, open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.tokenizer import Tokenizer

LENGTH = 24


@pytest.fixture(scope="module")
def tokenizer(data_folder):
    return Tokenizer.load(data_folder / "tokenizer")


@pytest.fixture(scope="module")
def make(data_folder, tokenizer):
    def make_stream(batch=12, micro=12, rank=0, world=1, *, seed=3, length=LENGTH, probability=0.15):
        samples = SampleStream(open_split(data_folder, "train"), length, 0, 2, seed)
        config = MaskingConfig(mlm_probability=probability)
        masker = Masker(config, seed, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
        sizes = StepSizes(samples, lambda consumed: batch, micro)
        return MaskedLMStream(samples, masker, sizes, rank=rank, world_size=world)

    return make_stream


def sequences(batches):
    """For each sample: ids, labels by position in it, and its dropout key."""
    found = {}
    for batch in batches:
        assert batch.lengths == (LENGTH,) * len(batch.samples)
        labels = torch.full_like(batch.ids_N, -1)
        labels[batch.targets_M] = batch.labels_M
        ids, labels = batch.ids_N.view(-1, LENGTH), labels.view(-1, LENGTH)
        for row, sample in enumerate(batch.samples):
            assert sample not in found
            found[sample] = (ids[row].tolist(), labels[row].tolist(), int(batch.dropout.rows[row]))
    return found


def test_micro_batches_do_not_change_a_step(make):
    expected = [sequences(whole) for stream in [make()] for whole in (stream.next_step(), stream.next_step())]
    for micro in (1, 5, 7, 100):
        stream = make(micro=micro)
        assert [sequences(stream.next_step()) for _ in range(2)] == expected


def test_the_union_of_ranks_is_the_single_run(make):
    single = make()
    ranks = [make(micro=4, rank=rank, world=2) for rank in range(2)]
    for _ in range(3):
        batches = [batch for rank in ranks for batch in rank.next_step()]
        assert sequences(batches) == sequences(single.next_step())
    assert [rank.state() for rank in ranks] == [single.state()] * 2


def test_labels_are_the_original_tokens(make, tokenizer):
    stream = make(probability=0.5)
    (batch,) = stream.next_step()
    original = stream.samples.batch(0, 12)
    ids = torch.from_numpy(original.ids.reshape(-1))
    assert torch.equal(batch.labels_M, ids[batch.targets_M])
    untouched = torch.ones(len(ids), dtype=torch.bool)
    untouched[batch.targets_M] = False
    assert torch.equal(batch.ids_N[untouched], ids[untouched])
    assert not np.isin(batch.labels_M.numpy(), tokenizer.special_ids).any()
    eligible = (original.positions >= 0) & ~np.isin(original.ids, tokenizer.special_ids)
    number = int(eligible.sum())
    assert batch.counts == {
        "eligible": number,
        "expected_targets": pytest.approx(number * 0.5),
        "mask_variance": pytest.approx(number * 0.25),
        "real_tokens": 12 * LENGTH,
    }
    assert (batch.num_targets, batch.num_tokens) == (len(batch.targets_M), 12 * LENGTH)
    assert batch.targets == {"loss": len(batch.targets_M)}


def test_a_batch_over_two_epochs_uses_the_masks_of_each(make):
    stream = make()
    number = stream.samples.samples_per_epoch
    across = mask_batch(stream.samples, stream.masker, number - 1, 2, None)
    ends = [mask_batch(stream.samples, stream.masker, first, 1, None) for first in (number - 1, number)]
    assert sequences([across]) == sequences(ends)


def test_masks_change_with_the_epoch(make):
    stream = make()
    number = stream.samples.samples_per_epoch
    masked = []
    for epoch in range(2):
        positions = set()
        for sample in range(epoch * number, epoch * number + number):
            batch = mask_batch(stream.samples, stream.masker, sample, 1, None)
            positions |= set(stream.samples.batch(sample, 1).positions[batch.targets_M.numpy()].tolist())
        masked.append(positions)
    both = len(masked[0] & masked[1]) / len(masked[0])
    assert 0.05 < both < 0.3


def test_a_repeated_source_gets_other_masks_while_the_rest_is_in_its_first_epoch(data_folder, make):
    data = open_split(data_folder, "train")
    small = open_split(data_folder, "validation").shards
    shards = [shard.replace(source="large") for shard in data.shards]
    shards += [shard.replace(source="small") for shard in small]
    split = data.manifest.splits["train"].replace(shards=tuple(shards))
    mixed = data.manifest.replace(splits={"train": split}, repeats={"small": 3.0})
    samples = SampleStream(TokenData(data_folder, mixed, "train"), LENGTH, 0, 2, 3)
    number, first = samples.samples_per_epoch, samples.data.sources[1].first
    batch = samples.batch(0, number)
    positions = batch.positions.reshape(number, -1)
    inside = (positions >= first).any(axis=1)
    assert set(batch.epoch[~inside].tolist()) == {0}
    assert set(batch.epoch[inside].tolist()) == {0, 1, 2}
    masked = {epoch: set() for epoch in range(3)}
    for row in np.flatnonzero(inside):
        one = mask_batch(samples, make().masker, int(row), 1, None)
        masked[int(batch.epoch[row])] |= set(positions[row][one.targets_M.numpy()].tolist())
    for epoch in range(2):
        both = len(masked[epoch] & masked[epoch + 1]) / len(masked[epoch])
        assert 0.02 < both < 0.35
    with pytest.raises(CheckpointError, match="the checkpoint was made with data"):
        MaskedLMStream(samples, make().masker, make().sizes).restore(make().state())


def test_validation_batches_never_change(make, data_folder):
    stream = make()
    samples = SampleStream(open_split(data_folder, "validation"), LENGTH, 0, 2, 3, shuffle=False)

    def collect(number, size):
        return sequences(fixed_batches(samples, stream.masker, number, size))

    assert collect(10, 3) == collect(10, 10)
    assert list(collect(10, 4)) == list(range(10))
    assert len(collect(10**9, 50)) == samples.samples_per_epoch


def test_the_state_is_a_few_values_and_reaches_any_step(make):
    stream = make(micro=5)
    for _ in range(4):
        stream.next_step()
    state = stream.state()
    assert state["consumed"] == 48
    again = make(micro=3)
    again.restore(state)
    assert sequences(again.next_step()) == sequences(stream.next_step())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "made with seed 3, now it is 4; resume with what the run began with"),
        ({"length": 16}, "made with sequence_length 24, now it is 16"),
        (
            {"probability": 0.2},
            r"made with masking \{'mlm_probability': 0\.15.*now it is \{'mlm_probability': 0\.2",
        ),
    ],
)
def test_a_state_of_another_run_is_refused(make, changes, said):
    with pytest.raises(CheckpointError, match=said):
        make(**changes).restore(make().state())


def test_a_state_of_other_data_is_refused(make):
    state = {**make().state(), "data": "another"}
    with pytest.raises(CheckpointError, match=r"made with data 'another', now it is '[0-9a-f]{32}'"):
        make().restore(state)


def test_the_loss_is_a_sum(make, tokenizer):
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    model = MaskedLM(config)
    initialize(model, 0, 0.1)
    (whole,) = make().next_step()
    parts = make(micro=5).next_step()

    def measure(batch, *, train=False):
        losses, sums = masked_lm_loss(model, batch, train=train)
        assert (losses.keys(), sums.keys()) == ({"loss"}, {"correct"})
        return losses["loss"].item(), sums["correct"].item()

    loss, correct = measure(whole)
    found = [measure(part) for part in parts]
    assert loss == pytest.approx(sum(value for value, _ in found), rel=1e-6)
    assert correct == sum(number for _, number in found)
    dropped, _ = measure(whole, train=True)
    assert dropped != loss
    with torch.no_grad():
        assert measure(whole, train=True)[0] == dropped
