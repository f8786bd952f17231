"""Steps in fp16: the scaled gradient is the true one, overflows are skipped, and the scale resumes."""

import copy

import pytest
import torch
from torch import nn

from maskwright.core.errors import UserError
from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.objectives.masking import Masker, MaskingConfig
from maskwright.objectives.mlm import MaskedLMStream, masked_lm_loss
from maskwright.objectives.step_sizes import StepSizes
from maskwright.parallel.loss_scaling import LossScaler
from maskwright.parallel.single import SingleEngine
from maskwright.tokens.shards import open_split
from maskwright.tokens.stream import SampleStream
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

ONE = {"loss": 1}


class Line(nn.Module):
    """y = w x, so that everything can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))


def product(model, batch, *, train):
    return {"loss": (model.weight.float() * batch).sum()}, {}


def make_sgd(named):
    return torch.optim.SGD([parameter for _, parameter in named], lr=1.0)


def line(limit=0.0):
    return SingleEngine(Line(), make_sgd, "cpu", "fp16", limit)


def step(engine, *values, lr=0.25):
    engine.forward_backward(product, torch.tensor([values]), ONE)
    return engine.step(lr)


def test_the_gradient_is_that_without_a_scale():
    engine = line()
    assert engine.scaler.scale == 2.0**16
    outcome = step(engine, 0.5, 0.25)
    assert outcome.applied
    assert outcome.norms.total == pytest.approx(0.3125**0.5)
    assert engine.weights()["weight"].tolist() == [[3 - 0.125, 4 - 0.0625]]
    assert engine.model.weight.dtype == torch.float16
    assert torch.equal(engine.model.weight.float(), engine.weights()["weight"])


def test_gradients_too_small_for_fp16_survive():
    engine = line()
    step(engine, 2.0**-26, 0.0, lr=2.0**10)
    assert engine.weights()["weight"][0, 0].item() == 3 - 2.0**-16


def test_clipping_sees_the_true_norm():
    engine = line(limit=0.25)
    outcome = step(engine, 0.3, 0.4)
    assert outcome.norms.total == pytest.approx(0.5, rel=1e-3)
    assert engine.weights()["weight"][0].tolist() == pytest.approx([3 - 0.0375, 4 - 0.05], rel=1e-3)


def test_an_overflow_changes_nothing_and_halves_the_scale():
    engine = line()
    said = []
    for _ in range(3):
        # 2 × 65504 and more overflow; from a scale of 2^14 on it fits.
        outcome = step(engine, 2.0, 0.0)
        said.append(outcome.reason)
        if not outcome.applied:
            assert engine.weights()["weight"].tolist() == [[3.0, 4.0]]
            assert outcome.norms.total == float("inf")
    assert said == [
        "the fp16 gradient overflowed at loss scale 65536; it is 32768 now",
        "the fp16 gradient overflowed at loss scale 32768; it is 16384 now",
        None,
    ]
    assert engine.weights()["weight"].tolist() == [[2.5, 4.0]]


def test_what_the_caller_refuses_is_no_overflow():
    engine = line()
    engine.forward_backward(product, torch.tensor([[0.5, 0.25]]), ONE)
    outcome = engine.step(0.25, lambda norms: "not today")
    assert (outcome.reason, engine.scaler.scale) == ("not today", 2.0**16)
    assert engine.weights()["weight"].tolist() == [[3.0, 4.0]]


def test_a_scale_that_collapses_ends_the_run():
    engine = line()
    engine.scaler = LossScaler(initial=2.0, minimum=1.0)
    assert step(engine, float("inf"), 0.0).reason is not None
    with pytest.raises(
        UserError, match="step 2: the gradient is not finite even at the smallest loss scale, 1"
    ):
        step(engine, float("inf"), 0.0)


def test_the_scale_is_part_of_the_state():
    engine = line()
    step(engine, 2.0, 0.0)
    step(engine, 0.5, 0.0)
    state = copy.deepcopy(engine.state())
    assert {name: value.item() for name, value in state["scaler"].items()} == {
        "exponent": 15,
        "good_steps": 1,
        "steps": 2,
    }
    again = line()
    again.load(state)
    assert again.scaler.scale == 2.0**15
    assert again.scaler.state() == engine.scaler.state()
    # A state of another precision has no scale; the run then begins with the usual one.
    bare = line()
    bare.load({name: part for name, part in state.items() if name != "scaler"})
    assert bare.scaler.state() == LossScaler().state()


def batches(data_folder, micro):
    samples = SampleStream(open_split(data_folder, "train"), 32, 0, 2, 0)
    masker = Masker(MaskingConfig(), 0, 400, 399, (0, 1, 2, 3, 399))
    return MaskedLMStream(samples, masker, StepSizes(samples, lambda consumed: 12, micro))


def make_engine(precision):
    config = EncoderConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=34,
    )
    model = MaskedLM(config)
    initialize(model, 0, 0.1)
    return SingleEngine(model, optimizer_factory(OptimizerConfig()), "cpu", precision, 1.0)


def accumulate(engine, stream):
    found = stream.next_step()
    totals = {"loss": sum(batch.num_targets for batch in found)}
    for batch in found:
        engine.forward_backward(masked_lm_loss, batch, totals)


def gradient_of(engine, data_folder, micro):
    accumulate(engine, batches(data_folder, micro))
    scale = 1.0 if engine.scaler is None else engine.scaler.scale
    return torch.cat([value.flatten() for value in engine.masters.gradients().values()]) / scale


@pytest.mark.parametrize("micro", [12, 5])
def test_the_gradient_of_a_model_is_that_of_fp32(data_folder, micro):
    expected = gradient_of(make_engine("fp32"), data_folder, 12)
    found = gradient_of(make_engine("fp16"), data_folder, micro)
    assert found.dtype == torch.float32
    # Roundings to 11 bits, where bf16 has 8.
    assert (found - expected).norm() <= 0.004 * expected.norm()


def test_state_and_load_go_on_bit_for_bit(data_folder):
    one, stream = make_engine("fp16"), batches(data_folder, 5)
    one.scaler = LossScaler(growth_interval=3)

    def go_on(engine, source):
        accumulate(engine, source)
        assert engine.step(1e-3).applied

    for _ in range(2):
        go_on(one, stream)
    saved, consumed = copy.deepcopy(one.state()), stream.state()
    two, again = make_engine("fp16"), batches(data_folder, 5)
    two.scaler = LossScaler(growth_interval=3)
    two.load(saved)
    again.restore(consumed)
    for _ in range(2):
        go_on(one, stream)
        go_on(two, again)
    assert two.scaler.state() == one.scaler.state()
    assert one.scaler.scale == 2.0**17
    for name, value in one.weights().items():
        assert torch.equal(value, two.weights()[name]), name
