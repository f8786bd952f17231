"""The single engine: any split of a step gives the same gradient, and bad steps change nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from maskwright.core.errors import CheckpointError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream, masked_lm_loss
from maskwright.objectives.step_sizes import StepSizes
from maskwright.parallel.single import SingleEngine
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

ONE = {"loss": 1}


def stream(data_folder, micro):
    samples = SampleStream(open_split(data_folder, "train"), 32, 0, 2, 0)
    sizes = StepSizes(samples, lambda consumed: 12, micro)
    return MaskedLMStream(samples, Masker(MaskingConfig(), 0, 400, 399, (0, 1, 2, 3, 399)), sizes)


def engine(dropout=0.1, precision="fp32", max_grad_norm=0.0, lr=1e-2):
    config = EncoderConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=34,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = MaskedLM(config)
    initialize(model, 0, 0.1)
    return SingleEngine(model, optimizer_factory(OptimizerConfig(lr=lr)), "cpu", precision, max_grad_norm)


def accumulate(found, batches):
    total = sum(batch.num_targets for batch in batches)
    sums = [found.forward_backward(masked_lm_loss, batch, {"loss": total}) for batch in batches]
    gradient = torch.cat([value.flatten() for value in found.masters.gradients().values()])
    return gradient, {name: sum(part[name] for part in sums) for name in sums[0]}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("micro", [1, 5, 6])
def test_any_split_into_micro_batches_gives_the_same_gradient(data_folder, micro, dropout):
    whole, sums = accumulate(engine(dropout), stream(data_folder, 12).next_step())
    parts, part_sums = accumulate(engine(dropout), stream(data_folder, micro).next_step())
    assert (parts - whole).norm() <= 1e-6 * whole.norm()
    assert part_sums["loss_sum"] == pytest.approx(sums["loss_sum"], rel=1e-6)
    assert part_sums["correct"] == sums["correct"]


def test_bf16_accumulates_in_fp32(data_folder):
    whole, _ = accumulate(engine(0.0, "bf16"), stream(data_folder, 12).next_step())
    parts, _ = accumulate(engine(0.0, "bf16"), stream(data_folder, 1).next_step())
    exact, _ = accumulate(engine(0.0), stream(data_folder, 12).next_step())
    assert parts.dtype == torch.float32
    # One rounding to bf16 a micro-batch, not one an addition.
    assert (parts - exact).norm() <= 0.03 * exact.norm()
    assert (whole - exact).norm() <= 0.03 * exact.norm()


def test_dropout_is_the_only_difference_between_training_and_evaluation(data_folder):
    (batch,) = stream(data_folder, 12).next_step()
    still, dropping = engine(0.0), engine(0.1)
    plain = still.forward(masked_lm_loss, batch)
    assert still.forward_backward(masked_lm_loss, batch, ONE) == plain
    assert dropping.forward(masked_lm_loss, batch) == plain
    assert dropping.forward_backward(masked_lm_loss, batch, ONE)["loss_sum"] != plain["loss_sum"]


class Line(nn.Module):
    """y = w x, so that everything can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        self.bias = nn.Parameter(torch.zeros(1))


def product(model, batch, *, train):
    return {"loss": (model.weight * batch).sum() + model.bias.sum()}, {}


def make_sgd(named):
    return torch.optim.SGD([parameter for _, parameter in named], lr=1.0)


@pytest.mark.parametrize(("limit", "scale"), [(0.0, 1.0), (2.5, 0.5), (10.0, 1.0)])
def test_gradients_are_scaled_down_to_the_limit(limit, scale):
    found = SingleEngine(Line(), make_sgd, "cpu", "fp32", limit)
    # Gradients: (1, sqrt(23)) of the weight and 1 of the bias, together of norm 5.
    found.forward_backward(product, torch.tensor([[1.0, 23**0.5]]), ONE)
    outcome = found.step(0.1)
    assert outcome.norms.total == pytest.approx(5)
    assert outcome.applied
    expected = [3 - 0.1 * scale, 4 - 0.1 * scale * 23**0.5]
    assert found.model.weight[0].tolist() == pytest.approx(expected)
    assert found.model.bias.item() == pytest.approx(-0.1 * scale)
    assert found.model.weight.grad is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_is_not_finite_changes_nothing(data_folder, bad, precision):
    found = engine(precision=precision)
    batches = stream(data_folder, 6).next_step()
    accumulate(found, batches)
    found.step(1e-2)
    before = {name: value.clone() for name, value in found.weights().items()}
    moments = {name: state["exp_avg"].clone() for name, state in found.state()["optimizer"].items()}

    def broken(model, batch, *, train):
        losses, sums = masked_lm_loss(model, batch, train=train)
        return {"loss": losses["loss"] * bad}, sums

    found.forward_backward(broken, batches[0], ONE)
    found.forward_backward(masked_lm_loss, batches[1], ONE)
    outcome = found.step(1e-2)
    assert not outcome.applied
    assert not np.isfinite(outcome.norms.total)
    assert all(torch.equal(value, before[name]) for name, value in found.weights().items())
    state = found.state()["optimizer"]
    assert all(torch.equal(state[name]["exp_avg"], value) for name, value in moments.items())
    # The next step starts from a clean gradient.
    accumulate(found, batches)
    assert found.step(1e-2).applied


def test_bf16_keeps_fp32_copies():
    found = SingleEngine(Line(), make_sgd, "cpu", "bf16", 0.0)
    assert found.model.weight.dtype == torch.bfloat16
    for _ in range(100):
        found.forward_backward(product, torch.ones(1, 2, dtype=torch.bfloat16), ONE)
        found.step(1e-4)
    # A hundred steps of 1e-4 are lost one by one in bf16, whose neighbours of 3 lie 1/64 apart.
    assert found.weights()["weight"].tolist()[0] == pytest.approx([2.99, 3.99], abs=1e-4)
    assert found.weights()["weight"].dtype == torch.float32
    assert torch.equal(found.model.weight, found.weights()["weight"].bfloat16())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_state_and_load_go_on_bit_for_bit(data_folder, precision):
    one, batches = engine(precision=precision), stream(data_folder, 6)
    for _ in range(2):
        accumulate(one, batches.next_step())
        one.step(1e-2)
    saved = {
        part: {
            name: {k: v.clone() for k, v in value.items()} if isinstance(value, dict) else value.clone()
            for name, value in values.items()
        }
        for part, values in one.state().items()
    }
    consumed = batches.state()
    for _ in range(2):
        accumulate(one, batches.next_step())
        one.step(1e-2)
    two, again = engine(precision=precision), stream(data_folder, 6)
    two.load(saved)
    again.restore(consumed)
    for _ in range(2):
        accumulate(two, again.next_step())
        two.step(1e-2)
    for name, value in one.weights().items():
        assert torch.equal(value, two.weights()[name]), name
    # What was loaded is a copy, which training must not have changed.
    assert not torch.equal(saved["model"]["head_bias"], two.weights()["head_bias"])


def test_a_state_of_another_model_is_refused():
    found = SingleEngine(Line(), make_sgd, "cpu", "fp32", 0.0)
    remedy = "resume with the model that the run began with"
    with pytest.raises(
        CheckpointError, match=rf"bias is missing in the checkpoint, expected \(1,\); {remedy}"
    ):
        found.load({"model": {"weight": torch.zeros(1, 2)}})
    said = r"weight is of shape \(2, 2\) in the checkpoint, expected \(1, 2\)"
    with pytest.raises(CheckpointError, match=said):
        found.load({"model": {"weight": torch.zeros(2, 2), "bias": torch.zeros(1)}})
    state = found.state()
    state["model"]["more"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=f"more of the checkpoint is not in the model; {remedy}"):
        found.load(state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dropout_on_a_gpu_follows_the_batch():
    config = EncoderConfig(vocab_size=400, hidden_size=64, num_hidden_layers=2, num_attention_heads=2)
    batch = SimpleNamespace(
        ids_N=torch.arange(64) + 4,
        lengths=(32, 20, 12),
        targets_M=torch.arange(10),
        labels_M=torch.arange(10) + 4,
    )
    from maskwright.model.dropout import DropoutKeys

    def losses(*rows):
        batch.dropout = DropoutKeys(np.array(rows, np.int64))
        model = MaskedLM(config)
        initialize(model, 0, 0.1)
        found = SingleEngine(model, optimizer_factory(OptimizerConfig()), "cuda", "fp32", 0.0)
        return [found.forward_backward(masked_lm_loss, batch, ONE)["loss_sum"] for _ in range(2)]

    first = losses(1, 2, 3)
    assert first[0] == first[1]
    assert losses(1, 2, 3) == first
    assert losses(1, 2, 4) != first
