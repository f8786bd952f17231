"""Our samples and masks in loops that are not ours: the same as in our own, whoever reads them."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

import maskwright
import tiny_world
from maskwright.core.errors import ConfigError, DataError, ShardError
from maskwright.objectives.hf_collator import IGNORED, MaskingCollator, masked_lm_mean
from maskwright.objectives.masking import FIXED_EPOCH, Masker, MaskingConfig
from maskwright.objectives.mlm import mask_batch
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.interchange.torch_dataset import PackedDataset
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.words import open_words

LENGTH, SEED = 24, 7
WINDOWS, PAIRS = FormatConfig(), FormatConfig(name="segment-pair")


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A data folder that knows where sentences end."""
    folder = tmp_path_factory.mktemp("sentences")
    corpus = tiny_world.write_corpus(folder / "corpus.jsonl", documents=60)
    maskwright.prepare({**tiny_world.prepare_values(corpus), "sentences": True}, output=folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def train(data_folder):
    return PackedDataset(data_folder, LENGTH, seed=SEED)


def own(folder, config, first, count, *, split="train", shuffle=True, kind=WINDOWS, epoch=None):
    """Rows of ids and labels as our own stream makes them."""
    data, tokenizer = open_split(folder, split), Tokenizer.load(folder / "tokenizer")
    stream = SampleStream(
        data, LENGTH, tokenizer.bos_id, tokenizer.eos_id, SEED, shuffle=shuffle, format=kind
    )
    words = None if config.unit == "token" else open_words(data, tokenizer)
    masker = Masker(config, SEED, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids, words)
    batch = mask_batch(stream, masker, first, count, epoch)
    labels = torch.full_like(batch.ids_N, IGNORED)
    labels[batch.targets_M] = batch.labels_M
    return list(zip(rows(batch.ids_N, batch.lengths), rows(labels, batch.lengths), strict=True))


def rows(values, lengths):
    return [part.tolist() for part in torch.split(values, list(lengths))]


def theirs(batches):
    """Rows of ids and labels of collated batches, without their padding."""
    found = []
    for batch in batches:
        assert (
            batch["input_ids"].dtype == batch["labels"].dtype == batch["attention_mask"].dtype == torch.int64
        )
        real = batch["attention_mask"].bool()
        assert (batch["labels"][~real] == IGNORED).all()
        lengths = real.sum(1).tolist()
        # Padding stands behind, never between.
        assert all(row[:size].all() for row, size in zip(real, lengths, strict=True))
        found += zip(
            rows(batch["input_ids"][real], lengths), rows(batch["labels"][real], lengths), strict=True
        )
    return found


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_samples_and_masks_are_those_of_our_own_stream_in_every_epoch(data_folder, train, unit):
    config = MaskingConfig(unit=unit)
    loader = DataLoader(train, batch_size=7, collate_fn=MaskingCollator([train], config, SEED))
    epochs = []
    for epoch in range(3):
        train.set_epoch(epoch)
        epochs.append(theirs(loader))
        assert epochs[-1] == own(data_folder, config, epoch * len(train), len(train))
    train.set_epoch(0)
    assert epochs[0] != epochs[1] != epochs[2]


def test_neither_sampler_nor_workers_nor_batches_change_a_sample(data_folder, train):
    config = MaskingConfig(unit="word")
    collator = MaskingCollator([train], config, SEED)
    expected = sorted(theirs(DataLoader(train, batch_size=7, collate_fn=collator)))
    sampler = RandomSampler(train, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(
        train, batch_size=5, sampler=sampler, collate_fn=collator, num_workers=1, persistent_workers=True
    )
    found = theirs(loader)
    assert found != expected
    assert sorted(found) == expected
    # A worker that is at work already must learn of the next epoch.
    train.set_epoch(1)
    following = theirs(loader)
    train.set_epoch(0)
    assert sorted(following) == sorted(own(data_folder, config, len(train), len(train)))
    assert sorted(following) != expected


def test_both_may_be_pickled(train):
    collator = MaskingCollator([train], MaskingConfig(unit="span"), SEED, pad_to_multiple_of=32)
    train.set_epoch(2)
    copy, same = pickle.loads(pickle.dumps((train, collator)))
    batch, again = collator(train.__getitems__([3, 4, 9])), same([copy[3], copy[4], copy[9]])
    train.set_epoch(0)
    assert batch.keys() == again.keys() == {"input_ids", "attention_mask", "labels"}
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["input_ids"].shape == (3, 32)


def test_several_epochs_in_one_length(data_folder, train):
    long = PackedDataset(data_folder, LENGTH, seed=SEED, epochs=3)
    assert len(long) == 3 * len(train)
    train.set_epoch(2)
    one, other = train[5], long[2 * len(train) + 5]
    train.set_epoch(0)
    assert one.epoch == other.epoch == 2
    assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(long[-1].ids, long[len(long) - 1].ids)
    long.set_epoch(1)
    assert long[0].epoch == 3


def test_evaluation_masks_never_change(data_folder, train):
    config = MaskingConfig(unit="word")
    valid = PackedDataset(data_folder, LENGTH, split="validation", seed=SEED, shuffle=False)
    collator = MaskingCollator([train, valid], config, SEED)
    first = theirs([collator([valid[index] for index in range(len(valid))])])
    assert first == own(
        data_folder, config, 0, len(valid), split="validation", shuffle=False, epoch=FIXED_EPOCH
    )
    valid.set_epoch(5)
    assert theirs([collator([valid[index] for index in range(len(valid))])]) == first
    # Both in one batch: each has the words of its own split.
    mixed = theirs([collator([valid[0], train[0], valid[1]])])
    assert [mixed[0], mixed[2]] == first[:2]
    assert mixed[1:2] == own(data_folder, config, 0, 1)


def test_pairs_are_padded_and_have_types_and_labels(sentences):
    pairs = PackedDataset(sentences, LENGTH, seed=SEED, format=PAIRS)
    config = MaskingConfig()
    collator = MaskingCollator([pairs], config, SEED, next_sentence=True)
    samples = [pairs[index] for index in range(len(pairs))]
    batch = collator(samples)
    assert len({len(sample.ids) for sample in samples}) > 1
    assert theirs([batch]) == own(sentences, config, 0, len(pairs), kind=PAIRS)
    expected = pairs.stream.batch(0, len(pairs))
    real = batch["attention_mask"].bool()
    assert torch.equal(batch["token_type_ids"][real], torch.from_numpy(expected.token_types))
    assert not batch["token_type_ids"][~real].any()
    assert (batch["input_ids"][~real] == pairs.tokenizer.pad_id).all()
    assert torch.equal(batch["next_sentence_label"], torch.from_numpy(expected.next_labels))
    assert "next_sentence_label" not in MaskingCollator([pairs], config, SEED)(samples)


def test_the_loss_weighs_every_target_the_same_however_a_step_is_cut(train):
    batch = MaskingCollator([train], MaskingConfig(), SEED)([train[index] for index in range(6)])
    labels = batch["labels"]
    logits = torch.randn(
        *labels.shape, train.tokenizer.vocab_size, generator=torch.Generator().manual_seed(0)
    )
    whole = masked_lm_mean({"logits": logits}, labels)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(whole, expected)
    count = (labels != IGNORED).sum()
    cut = sum(
        masked_lm_mean({"logits": logits[part]}, labels[part], count) for part in (slice(1), slice(1, 6))
    )
    torch.testing.assert_close(cut, whole)


def test_what_cannot_be_done_is_refused(data_folder, sentences, train):
    with pytest.raises(ConfigError, match="epochs is 0, expected at least 1"):
        PackedDataset(data_folder, LENGTH, epochs=0)
    with pytest.raises(ShardError, match="has no split 'test'"):
        PackedDataset(data_folder, LENGTH, split="test")
    with pytest.raises(IndexError, match=f"sample {len(train)} lies outside 0 to {len(train)}"):
        train[len(train)]
    with pytest.raises(ConfigError, match="the collator was given no dataset; give it those"):
        MaskingCollator([])
    with pytest.raises(ConfigError, match=r"final_probability is 0\.3, but a collator does not know"):
        MaskingCollator([train], MaskingConfig(final_probability=0.3))
    other = PackedDataset(sentences, LENGTH)
    with pytest.raises(
        ConfigError, match=r"the datasets have vocabularies \w+, \w+; make a collator for each"
    ):
        MaskingCollator([train, other])
    with pytest.raises(
        DataError, match=r"a sample is of \w+/train, the collator knows \w+/train; give it every"
    ):
        MaskingCollator([train])([other[0]])
