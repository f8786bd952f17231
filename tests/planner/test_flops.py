"""Counts of parameters and operations equal those of the model itself."""

import subprocess
import sys

import pytest

from maskwright.core.errors import ConfigError
from maskwright.planner import model_flops_per_token, num_parameters

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 50_265,
}
LARGE = BASE | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
ODD = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 101,
}


def roberta(shape, max_position_embeddings, type_vocab_size=1, **options):
    transformers = pytest.importorskip("transformers")
    return transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            **shape,
            max_position_embeddings=max_position_embeddings,
            type_vocab_size=type_vocab_size,
            attn_implementation="eager",
            **options,
        )
    )


def test_the_published_sizes():
    assert num_parameters(**BASE, max_position_embeddings=514) == 124_697_433
    assert num_parameters(**LARGE, max_position_embeddings=514) == 355_412_057


@pytest.mark.parity
@pytest.mark.parametrize(
    ("shape", "positions", "types"),
    [(BASE, 514, 1), (LARGE, 514, 1), (ODD, 37, 2)],
    ids=["base", "large", "odd"],
)
def test_parameters_equal_those_of_transformers(shape, positions, types):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        model = roberta(shape, positions, types)
    counted = sum(parameter.numel() for parameter in model.parameters())
    encoder = sum(parameter.numel() for parameter in model.roberta.parameters())
    options = {"max_position_embeddings": positions, "type_vocab_size": types}
    assert num_parameters(**shape, **options) == counted
    assert num_parameters(**shape, **options, lm_head=False) == encoder


@pytest.mark.parity
def test_operations_equal_what_torch_counts():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    model = roberta(ODD, 37, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch, length = 3, 20
    tokens = torch.randint(4, 100, (batch, length))
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens).logits
    expected = model_flops_per_token(**ODD, sequence_length=length)
    assert counter.get_total_flops() == batch * length * expected.forward
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert counter.get_total_flops() == batch * length * (expected.training - expected.forward)


@pytest.mark.parity
def test_a_head_on_some_positions_costs_its_share():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    model = roberta(ODD, 37)
    tokens = torch.randint(4, 100, (2, 20))
    with FlopCounterMode(display=False) as counter:
        hidden = model.roberta(tokens).last_hidden_state
        model.lm_head(hidden.reshape(-1, 24)[::5])  # 8 of 40
    expected = model_flops_per_token(**ODD, sequence_length=20, head_positions_share=0.2)
    assert counter.get_total_flops() == pytest.approx(40 * expected.forward, rel=1e-12)


def test_the_parts_add_up():
    flops = model_flops_per_token(**BASE, sequence_length=512, head_positions_share=0.15)
    assert flops.linear == 2 * 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert flops.attention == 12 * 4 * 512 * 768
    assert flops.head == pytest.approx(0.15 * 2 * (768**2 + 768 * 50_265))
    assert flops.forward == flops.linear + flops.attention + flops.head
    assert flops.training == 3 * flops.forward
    without = model_flops_per_token(**BASE, sequence_length=512, head_positions_share=0)
    assert without.head == 0


def test_shapes_that_make_no_sense():
    with pytest.raises(ConfigError, match="num_hidden_layers is 0, expected at least 1"):
        num_parameters(**BASE | {"num_hidden_layers": 0}, max_position_embeddings=8)
    with pytest.raises(ConfigError, match="sequence_length is -1, expected at least 1"):
        model_flops_per_token(**BASE, sequence_length=-1)
    with pytest.raises(ConfigError, match="hidden_size 768 is not a multiple of num_attention_heads 5"):
        model_flops_per_token(**BASE | {"num_attention_heads": 5}, sequence_length=1)
    with pytest.raises(ConfigError, match="head_positions_share is 15, expected 0 to 1"):
        model_flops_per_token(**BASE, sequence_length=1, head_positions_share=15)


def test_the_planner_imports_no_torch():
    code = "import sys, maskwright.planner; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
