"""Learning rates by the step, and which parameters decay."""

import pytest
import torch
from torch import nn

from maskwright.training.optimizers import OptimizerConfig, optimizer_factory
from maskwright.training.schedules import ScheduleConfig, learning_rate


def rates(total=10, **settings):
    return [learning_rate(ScheduleConfig(**settings), 1.0, step, total) for step in range(1, total + 1)]


def test_linear_warm_up_and_decay():
    assert rates(warmup_share=0.2) == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )


def test_a_share_of_the_rate_is_left_at_the_end():
    found = rates(total=1000, warmup_share=0.0, final_share=0.1)
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.1 + 0.9 / 1000)


def test_constant_after_the_warm_up():
    assert rates(name="constant", warmup_share=0.4) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


@pytest.mark.parametrize("share", [0.0, 0.06, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 2, 17])
def test_no_step_is_without_a_rate(share, total):
    found = rates(total=total, warmup_share=share)
    assert all(0 < rate <= 1 for rate in found)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.dense = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


def test_biases_and_norms_do_not_decay():
    model = Small()
    nn.init.ones_(model.norm.bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = optimizer_factory(OptimizerConfig(lr=0.5, weight_decay=0.1))(model.named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.state_dict().items():
        decays = name in ("table.weight", "dense.weight")
        assert torch.allclose(value, before[name] * (0.95 if decays else 1.0)), name


def test_the_first_step_is_adam_with_the_asked_constants():
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    settings = OptimizerConfig(lr=0.1, beta1=0.8, beta2=0.9, eps=0.5, weight_decay=0.3)
    optimizer = optimizer_factory(settings)([("bias", parameter)])
    parameter.grad = torch.tensor([2.0, -4.0])
    optimizer.step()
    # After the correction for the first step both means are the gradient's own.
    assert parameter.tolist() == pytest.approx([1 - 0.1 * 2 / 2.5, -2 + 0.1 * 4 / 4.5])
