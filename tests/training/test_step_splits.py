"""A step has one gradient, whatever the format, the objective and the split into micro-batches."""

from collections import Counter

import pytest
import torch
from sentence_world import prepare_sentences
from torch.nn.utils.rnn import pad_sequence

from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.model.hf import to_hf_names
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream, masked_lm_loss
from maskwright.objectives.step_sizes import StepSizes
from maskwright.parallel.single import SingleEngine
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.words import open_words
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from maskwright.training.records import Window

LENGTH, SEQUENCES = 32, 8
SETTINGS = {
    "windows": {},
    "windows, documents apart": {"attention": "document"},
    "windows, whole words": {"unit": "word"},
    "windows, spans": {"unit": "span", "attention": "document"},
    "full-sentences": {"name": "full-sentences"},
    "full-sentences, documents apart, whole words": {
        "name": "full-sentences",
        "attention": "document",
        "unit": "word",
    },
    "doc-sentences": {"name": "doc-sentences"},
    "doc-sentences, spans": {"name": "doc-sentences", "unit": "span"},
    "segment-pair": {"name": "segment-pair"},
    "segment-pair, whole words": {"name": "segment-pair", "unit": "word"},
    "segment-pair, masks alone": {"name": "segment-pair", "next_sentence": False},
    "sentence-pair": {"name": "sentence-pair", "unit": "span"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_sentences(tmp_path_factory.mktemp("sentences"))


class World:
    """Data, opened once."""

    def __init__(self, folder):
        self.data, self.tokenizer = open_split(folder, "train"), Tokenizer.load(folder / "tokenizer")
        self.words = open_words(self.data, self.tokenizer)

    def stream(
        self, micro=SEQUENCES, rank=0, world=1, *, name="windows", unit="token", separators=2, **options
    ):
        layout, tokenizer = FormatConfig(name=name), self.tokenizer
        samples = SampleStream(self.data, LENGTH, 0, 2, 5, format=layout, separators=separators)
        masking = MaskingConfig(unit=unit)
        ids = (tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
        masker = Masker(masking, 5, *ids, self.words if unit != "token" else None)
        sizes = StepSizes(samples, lambda consumed: SEQUENCES, micro, layout.fills_tokens)
        options = {"next_sentence": layout.is_pair, **options}
        return MaskedLMStream(samples, masker, sizes, rank=rank, world_size=world, **options)


@pytest.fixture(scope="module")
def world(folder):
    return World(folder)


def make_model(*, pairs=False, **changes):
    values = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": LENGTH + 2,
        "type_vocab_size": 2 if pairs else 1,
        "next_sentence": pairs,
    }
    model = MaskedLM(EncoderConfig(**{**values, **changes}))
    initialize(model, 0, 0.1)
    return model


def make_engine(model, precision="fp32"):
    return SingleEngine(model, optimizer_factory(OptimizerConfig()), "cpu", precision, 0.0)


def accumulate(engine, batches):
    """Gradient of a step by parameter, sums, and counts of targets."""
    counts = Counter()
    for batch in batches:
        counts.update(batch.targets)
    found = [engine.forward_backward(masked_lm_loss, batch, counts) for batch in batches]
    sums = {name: sum(part[name] for part in found) for name in found[0]}
    gradient = {name: value.clone() for name, value in engine.masters.gradients().items()}
    engine.masters.clear()
    return gradient, sums, counts


def distance(one, other):
    """Between two gradients, relative to the second."""
    assert one.keys() == other.keys()
    flat, expected = (torch.cat([part[name].flatten() for name in other]) for part in (one, other))
    return ((flat - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_any_split_gives_the_same_gradient(world, setting):
    pairs = "pair" in setting.get("name", "") and setting.get("next_sentence", True)
    engine = make_engine(make_model(pairs=pairs))
    (batch,) = world.stream(100, **setting).next_step()
    whole, sums, counts = accumulate(engine, [batch])
    assert counts["loss"] > 10
    assert counts.keys() == ({"loss", "next_sentence_loss"} if pairs else {"loss"})
    for micro in (1, 3):
        batches = world.stream(micro, **setting).next_step()
        assert len(batches) >= SEQUENCES // micro
        gradient, part_sums, part_counts = accumulate(engine, batches)
        assert part_counts == counts
        assert distance(gradient, whole) <= 1e-6
        assert part_sums == pytest.approx(sums, rel=1e-6)


@pytest.mark.parametrize("name", ["windows", "doc-sentences", "segment-pair"])
def test_the_union_of_ranks_is_the_step(world, name):
    pairs = name == "segment-pair"
    engine = make_engine(make_model(pairs=pairs))
    single, ranks = world.stream(name=name), [world.stream(2, rank, 3, name=name) for rank in range(3)]
    for _ in range(2):
        whole, sums, counts = accumulate(engine, single.next_step())
        batches = [batch for rank in ranks for batch in rank.next_step()]
        gradient, part_sums, part_counts = accumulate(engine, batches)
        assert (part_counts, part_sums) == (counts, pytest.approx(sums, rel=1e-6))
        assert distance(gradient, whole) <= 1e-6
    assert [rank.state() for rank in ranks] == [single.state()] * 3


@pytest.mark.parametrize("name", ["doc-sentences", "sentence-pair"])
def test_no_micro_batch_has_more_tokens_than_its_budget(world, name):
    stream = world.stream(2, name=name)
    for _ in range(6):
        batches = stream.next_step()
        assert all(batch.num_tokens <= 2 * LENGTH for batch in batches)
        assert sum(batch.num_tokens for batch in batches) <= SEQUENCES * LENGTH
        assert sum(batch.num_tokens for batch in batches) > (SEQUENCES - 1) * LENGTH


def same_batch(one, other):
    """Whether two micro-batches agree in everything that reaches the model."""
    tensors = ("ids_N", "targets_M", "labels_M", "token_types_N", "next_labels_B")
    return one.lengths == other.lengths and all(
        (mine is None and theirs is None) or torch.equal(mine, theirs)
        for mine, theirs in ((getattr(one, name), getattr(other, name)) for name in tensors)
    )


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_any_step_is_reached_at_once(world, setting):
    stream, states, expected = world.stream(3, **setting), [], []
    for _ in range(6):
        states.append(stream.state())
        expected.append(stream.next_step())
    for number in (0, 2, 5):
        again = world.stream(3, **setting)
        again.restore(states[number])
        for batches in expected[number:]:
            found = again.next_step()
            assert len(found) == len(batches)
            assert all(map(same_batch, found, batches))


def test_the_loss_of_pairs_is_the_sum_of_two_means(world):
    (batch,) = world.stream(name="segment-pair").next_step()
    model, reference = make_model(pairs=True), make_model(pairs=True)
    assert batch.targets == {"loss": len(batch.labels_M), "next_sentence_loss": SEQUENCES}
    gradient, sums, counts = accumulate(make_engine(model), [batch])
    losses, further = masked_lm_loss(reference, batch, train=True)
    (losses["loss"] / len(batch.labels_M) + losses["next_sentence_loss"] / SEQUENCES).backward()
    assert distance(gradient, {name: value.grad for name, value in reference.named_parameters()}) <= 1e-6
    window = Window(steps=1, seconds=1.0)
    window.add({**sums, "tokens": 1, **{f"{name}_targets": count for name, count in counts.items()}})
    record = window.record(0, 0)
    expected = {
        "loss": losses["loss"].item() / len(batch.labels_M),
        "accuracy": further["correct"].item() / len(batch.labels_M),
        "next_sentence_loss": losses["next_sentence_loss"].item() / SEQUENCES,
        "next_sentence_accuracy": further["next_sentence_correct"].item() / SEQUENCES,
    }
    assert {name: record[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_without_the_head_the_labels_of_pairs_are_not_used(world):
    (batch,) = world.stream(name="segment-pair").next_step()
    (bare,) = world.stream(name="segment-pair", next_sentence=False).next_step()
    model = make_model(pairs=False, type_vocab_size=2)
    (losses, _), (others, _) = (masked_lm_loss(model, one, train=False) for one in (batch, bare))
    assert losses.keys() == others.keys() == {"loss"}
    assert losses["loss"].item() == others["loss"].item()
    assert bare.targets.keys() == {"loss"}


def test_token_types_reach_the_model(world):
    (batch,) = world.stream(name="segment-pair").next_step()
    assert batch.token_types_N.unique().tolist() == [0, 1]
    model = make_model(pairs=True)
    before, _ = masked_lm_loss(model, batch, train=False)
    with torch.no_grad():
        model.encoder.embeddings.token_type.weight[1] += torch.linspace(-1, 1, 32)
    after, _ = masked_lm_loss(model, batch, train=False)
    assert after["loss"].item() != before["loss"].item()
    # A model of one type, such as RoBERTa's, takes pairs without types.
    assert masked_lm_loss(make_model(type_vocab_size=1), batch, train=False)[0]["loss"].isfinite()


@pytest.mark.parity
def test_pairs_have_the_loss_and_gradients_of_bert(world):
    transformers = pytest.importorskip("transformers")
    (batch,) = world.stream(name="segment-pair", separators=1).next_step()
    # transformers leaves the padding's row of the word table out of the gradient; 0 is <s> here.
    kind = {"model_type": "bert", "max_position_embeddings": LENGTH, "pad_token_id": 1}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = make_model(pairs=True, **kind, **still)
    values = model.config.model_dump(exclude={"model_type", "pooler", "next_sentence"})
    config = transformers.BertConfig(**values, attn_implementation="eager")
    reference = transformers.BertForPreTraining(config)
    heads = model.config.num_attention_heads
    found = reference.load_state_dict(to_hf_names(model.state_dict(), heads, "bert"), strict=False)
    assert not found.unexpected_keys
    assert all(".decoder." in name for name in found.missing_keys)
    reference.tie_weights()
    labels_N = torch.full_like(batch.ids_N, -100)
    labels_N[batch.targets_M] = batch.labels_M

    def padded(values_N, value):
        return pad_sequence(torch.split(values_N, batch.lengths), batch_first=True, padding_value=value)

    loss = reference(
        input_ids=padded(batch.ids_N, 1),
        attention_mask=padded(torch.ones_like(batch.ids_N), 0),
        token_type_ids=padded(batch.token_types_N, 0),
        labels=padded(labels_N, -100),
        next_sentence_label=batch.next_labels_B,
    ).loss
    loss.backward()
    gradient, sums, counts = accumulate(make_engine(model), [batch])
    assert set(batch.next_labels_B.tolist()) == {0, 1}
    assert len(set(batch.lengths)) > 1
    assert sum(sums[f"{name}_sum"] / count for name, count in counts.items()) == pytest.approx(
        loss.item(), rel=1e-6
    )
    theirs = dict(reference.named_parameters())
    ours = to_hf_names(gradient, heads, "bert")
    expected = {name: theirs[name].grad for name in ours if name in theirs}
    assert {"cls.seq_relationship.weight", "bert.pooler.dense.weight"} <= expected.keys()
    assert expected.keys() == theirs.keys()
    assert distance({name: ours[name] for name in expected}, expected) <= 1e-5
