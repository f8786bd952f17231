"""Each guard finds the fault it is there for, and nothing where there is none."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, MaskwrightError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import Encoder, initialize
from maskwright.model.layout import Layout
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.guards import (
    Guards,
    GuardsConfig,
    Probe,
    RateGuard,
    check_accumulation,
    check_leakage,
    check_probe,
    describe_samples,
    document_pieces,
)

VOCAB = 50
LENGTHS = (5, 3, 7, 1, 4)
IDS = torch.arange(sum(LENGTHS)) * 7 % VOCAB


class Watcher:
    """A hook that remembers."""

    def __init__(self):
        self.records = []

    def record(self, record):
        self.records.append(record)

    def close(self):
        pass

    def messages(self):
        return [record["message"] for record in self.records]


@pytest.fixture(scope="module")
def encoder():
    config = EncoderConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    model = Encoder(config)
    initialize(model, 3, 0.2)
    return model


class TestLeakage:
    """Whether the tokens of one document reach the vectors of another."""

    def test_documents_of_the_encoder_are_apart(self, encoder):
        layout = Layout(LENGTHS)
        assert check_leakage(lambda ids: encoder(ids, layout), IDS, LENGTHS, VOCAB) is None

    def test_one_document_has_nobody_to_leak_to(self, encoder):
        layout = Layout([len(IDS)])
        assert check_leakage(lambda ids: encoder(ids, layout), IDS, [len(IDS)], VOCAB) is None

    def test_a_layout_that_joins_two_documents_is_found(self, encoder):
        layout = Layout((5, 10, 1, 4))
        fault = check_leakage(lambda ids: encoder(ids, layout), IDS, LENGTHS, VOCAB)
        assert "document 1 of the probe batch (tokens 5 to 8) changes with the tokens of other" in fault
        assert "set attention=window if that is meant" in fault

    @pytest.mark.parametrize("source", range(5))
    @pytest.mark.parametrize("victim", range(5))
    def test_every_pair_is_looked_at(self, source, victim):
        """A sum over one document reaches one token of another, by the smallest of numbers."""
        starts = np.cumsum((0, *LENGTHS))

        def encode(ids):
            hidden = F.one_hot(ids, VOCAB).double()
            reach = ids[starts[source] : starts[source + 1]].double().sum() * 1e-9
            hidden[starts[victim]] += reach
            return hidden

        fault = check_leakage(encode, IDS, LENGTHS, VOCAB)
        assert (fault is None) == (source == victim)
        if fault is not None:
            assert f"document {victim} of the probe batch" in fault
            assert str(source) in fault[fault.index("(", 60) :]

    def test_a_mean_over_the_batch_is_found(self):
        table = torch.randn(VOCAB, 4, generator=torch.Generator().manual_seed(0))

        def encode(ids):
            hidden = table[ids]
            return hidden - hidden.mean(0)

        assert "changes with the tokens of other documents" in check_leakage(encode, IDS, LENGTHS, VOCAB)

    def test_an_encoder_that_does_not_look_proves_nothing(self):
        fault = check_leakage(lambda ids: torch.ones(len(ids), 4), IDS, LENGTHS, VOCAB)
        assert "vectors do not change with the tokens of the probe batch" in fault

    def test_vectors_that_are_not_finite(self):
        fault = check_leakage(lambda ids: torch.full((len(ids), 4), torch.nan), IDS, LENGTHS, VOCAB)
        assert "vectors of the probe batch are not finite" in fault

    def test_more_documents_than_are_told_apart(self, encoder):
        lengths = (2,) * 20
        ids = torch.arange(40) % VOCAB
        passes = []

        def encode(ids):
            passes.append(1)
            return encoder(ids, Layout(lengths))

        assert check_leakage(encode, ids, lengths, VOCAB) is None
        assert len(passes) == 9  # one, and two for each of the four bits of sixteen numbers


class TestPieces:
    """Where documents begin within sequences."""

    def test_borders_come_from_the_tokens(self):
        #                <s> a  </s> b  b  </s>   <s> c  </s> </s>
        ids = np.array([0, 11, 2, 12, 13, 2, 0, 14, 2, 2])
        positions = np.array([-1, 4, 5, 6, 7, -1, -1, 8, 9, -1])
        assert document_pieces(ids, positions, (6, 4), eos_id=2) == [3, 3, 4]

    def test_separators_between_segments_are_no_borders(self):
        ids = np.array([0, 11, 2, 2, 12, 2])
        positions = np.array([-1, 4, -1, -1, 60, -1])
        assert document_pieces(ids, positions, (6,), eos_id=2) == [6]


@dataclass(frozen=True)
class Rows:
    """A micro-batch for a linear model."""

    inputs: torch.Tensor
    answers: torch.Tensor
    claimed: int | None = None

    @property
    def targets(self):
        return {"loss": len(self.inputs) if self.claimed is None else self.claimed}


def sums(model, batch, *, train):
    assert not train
    return {"loss": F.mse_loss(model(batch.inputs), batch.answers, reduction="sum")}, {}


def means(model, batch, *, train):
    """The inflated loss of many trainers: a mean for each micro-batch."""
    return {"loss": F.mse_loss(model(batch.inputs), batch.answers) * 12}, {}


def centred(model, batch, *, train):
    """The loss is a sum, but each row looks at the others of its micro-batch; its value is the same."""
    out = model(batch.inputs)
    rows = (out - batch.answers).pow(2).sum()
    return {"loss": rows + (out - out.mean(0)).sum() * 0 + out.pow(2).mean() - out.pow(2).mean().detach()}, {}


def cut(rows, *sizes):
    return [
        Rows(a, b)
        for a, b in zip(torch.split(rows.inputs, sizes), torch.split(rows.answers, sizes), strict=True)
    ]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(6, 3), Rows(torch.randn(12, 6), torch.randn(12, 3))


class TestAccumulation:
    """Whether the split into micro-batches changes the step."""

    @pytest.mark.parametrize("sizes", [(6, 6), (1, 11), (1,) * 12])
    def test_sums_do_not_depend_on_the_split(self, linear, sizes):
        model, rows = linear
        assert check_accumulation(model, sums, [rows], cut(rows, *sizes)) is None
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_a_mean_of_each_micro_batch_is_found(self, linear):
        model, rows = linear
        fault = check_accumulation(model, means, [rows], cut(rows, 2, 10))
        assert fault.startswith('the loss "loss" of the probe step is ')
        assert "the size of micro-batches would change the result" in fault

    def test_a_gradient_that_differs_where_the_loss_does_not(self, linear):
        model, rows = linear
        fault = check_accumulation(model, centred, [rows], cut(rows, 2, 10))
        assert fault.startswith("the gradient of weight of the probe step is ")

    def test_lost_targets_are_found(self, linear):
        model, rows = linear
        first, second = cut(rows, 6, 6)
        fault = check_accumulation(model, sums, [rows], [first, Rows(second.inputs, second.answers, 5)])
        assert "has {'loss': 12} targets in one micro-batch and {'loss': 11} in several" in fault

    def test_a_loss_that_is_not_a_number_does_not_pass(self, linear):
        model, rows = linear
        rows.answers[0] = torch.nan
        assert "is nan in one micro-batch" in check_accumulation(model, sums, [rows], cut(rows, 6, 6))

    def test_bf16_is_compared_with_its_own_rounding(self, linear):
        model, rows = linear
        model, rows = model.bfloat16(), Rows(rows.inputs.bfloat16(), rows.answers.bfloat16())
        assert check_accumulation(model, sums, [rows], cut(rows, 5, 7)) is None
        assert check_accumulation(model, means, [rows], cut(rows, 5, 7)) is not None


class TestJudging:
    """What a fault does."""

    @pytest.mark.parametrize(
        ("level", "grave", "ends"),
        [
            ("default", True, True),
            ("default", False, False),
            ("warn", True, False),
            ("error", False, True),
        ],
    )
    def test_levels(self, level, grave, ends):
        watcher = Watcher()
        guards = Guards(GuardsConfig(level=level), [watcher])
        if ends:
            with pytest.raises(MaskwrightError, match=r"step 4: masks: a fault; guards\.level=warn goes on"):
                guards.judge("masks", 4, "a fault", grave=grave)
            assert watcher.messages() == ["ERROR: masks: a fault"]
        else:
            guards.judge("masks", 4, "a fault", grave=grave)
            guards.judge("masks", 5, "the same again", grave=grave)
            assert watcher.records == [{"kind": "event", "step": 4, "message": "WARNING: masks: a fault"}]

    def test_off_looks_at_nothing(self):
        watcher = Watcher()
        guards = Guards(GuardsConfig(level="off"), [watcher])
        assert not guards.active
        guards.judge("masks", 4, "a fault")
        RateGuard(guards, 0.15).record({"kind": "train", "step": 1, "eligible": 10**6, "mask_rate": 0.5})
        assert watcher.records == []

    def test_no_fault_says_nothing(self):
        watcher = Watcher()
        Guards(GuardsConfig(), [watcher]).judge("masks", 4, None)
        assert watcher.records == []

    def test_the_short_form(self):
        assert (
            parse_config(GuardsConfig, GuardsConfig.model_validate("warn").model_dump(), "x").level == "warn"
        )
        with pytest.raises(ConfigError, match="level"):
            parse_config(GuardsConfig, {"level": "loud"}, "x")


def probe_of(ids, positions, lengths, masker, **changes):
    found = masker.mask(ids, positions, 0)
    targets = np.flatnonzero(found.selected)
    parts = {"seen": found.seen, "targets": targets, "labels": ids[targets], **changes}
    return Probe(ids, positions, lengths, **parts)


class TestProbe:
    """Masks, labels and leakage of a few samples; ids 0 to 4 are special and 2 closes a document."""

    masker = Masker(MaskingConfig(mlm_probability=0.4), 0, VOCAB, 4, (0, 1, 2, 3, 4))
    ids = np.array([0, 11, 12, 13, 2, 21, 22, 23, 24, 2, 0, 31, 32, 33, 2, 41, 42, 43, 44, 2])
    positions = np.array([-1, *range(8), -1, -1, *range(100, 108), -1])
    lengths = (10, 10)
    documents = Layout((5, 5, 5, 5))

    def check(self, encode, level="default", **changes):
        watcher = Watcher()
        probe = probe_of(self.ids, self.positions, self.lengths, self.masker, **changes)
        check_probe(Guards(GuardsConfig(level=level), [watcher]), 7, probe, self.masker, encode, 2)
        return watcher.messages()

    def test_a_right_run_passes(self, encoder):
        assert self.check(lambda ids: encoder(ids, self.documents)) == []

    def test_documents_that_see_each_other_in_a_window(self, encoder):
        with pytest.raises(MaskwrightError, match="step 7: leakage: document 1 of the probe batch"):
            self.check(lambda ids: encoder(ids, Layout((10, 10))))
        assert self.check(None) == []

    def test_wrong_labels(self, encoder):
        labels = np.zeros(1, np.int64)
        with pytest.raises(MaskwrightError, match=r"step 7: masks: \d+ tokens are masked and 1 have labels"):
            self.check(None, labels=labels)

    def test_a_masked_special(self, encoder):
        seen = np.where(self.ids == 2, 4, self.ids)
        targets = np.flatnonzero(self.ids == 2)
        (message,) = self.check(None, "warn", seen=seen, targets=targets, labels=self.ids[targets])
        assert message.startswith("WARNING: masks: special token 2 at position 3 of the data is masked")

    def test_off_does_not_run_the_model(self):
        assert self.check(lambda ids: 1 / 0, "off") == []


class TestMaskRate:
    """The share of masked tokens of a log window."""

    def look(self, rate, eligible=20_000, level="default", **fields):
        watcher = Watcher()
        guard = RateGuard(Guards(GuardsConfig(level=level), [watcher]), 0.15)
        guard.record({"kind": "train", "step": 20, "mask_rate": rate, "eligible": eligible, **fields})
        guard.record({"kind": "evaluation", "step": 20, "loss": 1.0})
        guard.close()
        return watcher.messages()

    @pytest.mark.parametrize("rate", [0.145, 0.15, 0.155])
    def test_a_likely_rate_passes(self, rate):
        assert self.look(rate) == []

    @pytest.mark.parametrize("rate", [0.12, 0.18, 0.0, 1.0])
    def test_an_unlikely_rate_is_told(self, rate):
        (message,) = self.look(rate)
        assert message.startswith(
            f"WARNING: mask rate: {rate:.2%} of 20000 tokens are masked, expected 15.00%"
        )

    def test_few_tokens_may_stray_farther(self):
        assert self.look(0.18, eligible=500) == []

    def test_words_may_stray_farther_and_a_schedule_moves_the_middle(self):
        assert self.look(0.18, mask_variance=20_000 * 0.15 * 0.85 * 10) == []
        assert self.look(0.30, expected_mask_rate=0.3) == []

    def test_it_can_end_the_run(self):
        with pytest.raises(MaskwrightError, match=r"step 20: mask rate: 18\.00% of 20000 tokens are masked"):
            self.look(0.18, level="error")

    def test_records_of_other_tasks_have_no_rate(self):
        watcher = Watcher()
        guard = RateGuard(Guards(GuardsConfig(level="error"), [watcher]), 0.15)
        guard.record({"kind": "train", "step": 1, "loss": 1.0})
        assert watcher.records == []


def several(stream, data):
    """Share of the first sequences that hold tokens of several documents, from where documents end."""
    ends = np.cumsum(
        np.concatenate([data.document_lengths(shard, 10**6) + 1 for shard in range(len(data.shards))])
    )
    found = []
    for number in range(256):
        positions = stream.batch(number, 1).positions
        found.append(len(np.unique(np.searchsorted(ends, positions[positions >= 0], side="right"))) > 1)
    return np.mean(found)


def test_what_the_cut_does_to_the_documents(data_folder):
    tokenizer = Tokenizer.load(data_folder / "tokenizer")
    data = open_split(data_folder, "train")
    stream = SampleStream(data, 32, tokenizer.bos_id, tokenizer.eos_id, 0)
    lengths = np.concatenate([data.document_lengths(shard, 10**6) for shard in range(len(data.shards))])
    message = describe_samples(stream, tokenizer.eos_id)
    share = np.mean(lengths > 30)
    assert 0 < share < 1
    assert message.startswith(
        f"samples: {share:.1%} of {len(lengths)} documents are longer than the 30 tokens"
    )
    assert f"{several(stream, data):.1%} of 256 sequences hold several documents" in message
    assert message.endswith(f"an epoch leaves {stream.tokens_left_out} tokens out and cuts 0 sentences")
    assert stream.tokens_left_out > 0
