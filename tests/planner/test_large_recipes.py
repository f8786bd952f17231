"""The recipes of several billion parameters have the shapes of their names, and can be shared out."""

import pytest

from maskwright.core.recipes import load_recipe
from maskwright.planner import HARDWARE, Batch, Mesh, Shape, best_mesh, rank_memory
from maskwright.training.pretrain_config import PretrainConfig

# Parameters of arXiv 2105.00572, and devices that the recipe speaks of.
RECIPES = {"roberta-xl": (3.5e9, 8), "roberta-xxl": (10.7e9, 16)}


def resolved(recipe):
    """The recipe and its shape, with a vocabulary of XLM-R's size."""
    config = load_recipe(PretrainConfig, "pretrain", recipe, [])
    return config, config.model.resolve(config.sequence_length, vocab_size=250_002, pad_token_id=1)


def plan(recipe):
    config, shape = resolved(recipe)
    names = Shape.__dataclass_fields__
    batch = Batch(config.batch.sequences, config.batch.micro_sequences, config.sequence_length)
    return config, Shape(**{name: getattr(shape, name) for name in names}), batch


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_on_the_meta_device(recipe):
    torch = pytest.importorskip("torch")
    from maskwright.model.heads import MaskedLM

    _, shape = resolved(recipe)
    with torch.device("meta"):
        model = MaskedLM(shape)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == plan(recipe)[1].num_parameters
    assert counted == pytest.approx(RECIPES[recipe][0], rel=0.01)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_layers_can_be_shared(recipe, tensor):
    pytest.importorskip("torch")
    from maskwright.parallel.tensor_parallel.share import check_shares

    _, shape = resolved(recipe)
    check_shares(shape, tensor)
    assert shape.hidden_size % (64 * tensor) == 0
    assert shape.head_size % 8 == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_fits_the_devices_it_is_for(recipe):
    config, shape, batch = plan(recipe)
    devices, parallel = RECIPES[recipe][1], config.parallel
    mesh = Mesh(parallel.engine, devices // parallel.tensor, parallel.tensor)
    assert rank_memory(shape, mesh, batch).total < 0.92 * 80e9
    assert batch.sequences % mesh.data == 0
    choice = best_mesh(shape, devices, HARDWARE["h100"], batch)
    assert mesh in [one.mesh for one in choice.plans]
    assert choice.best.mesh.engine == "fsdp2"
    assert not best_mesh(shape, 1, HARDWARE["h100"], batch).plans
