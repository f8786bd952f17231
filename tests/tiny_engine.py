"""Models of two tiny layers, and engines around them, the same on every rank."""

import torch

from maskwright.model.config import EncoderConfig
from maskwright.model.encoder import initialize
from maskwright.model.heads import MaskedLM
from maskwright.parallel.config import ParallelConfig
from maskwright.parallel.factory import EngineParts, make_engine
from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

SHAPE = EncoderConfig(
    vocab_size=61,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
)

# No number of rows divides by ranks or blocks, but for what ranks that share a layer need.
UNEVEN = EncoderConfig(
    vocab_size=61,
    hidden_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=26,
    max_position_embeddings=19,
    next_sentence=True,
    pooler=True,
)


def empty_model(shape=UNEVEN):
    """Without memory."""
    with torch.device("meta"):
        return MaskedLM(shape)


def whole_model(seed, shape=UNEVEN):
    model = MaskedLM(shape)
    initialize(model, seed, 0.1)
    return model


def tiny_engine(world, config, precision="fp32", **optimizer):
    """An engine in several processes, `single` in one."""
    model = whole_model(3, SHAPE)
    make = optimizer_factory(OptimizerConfig(weight_decay=0.1, **optimizer), num_heads=2)
    config = config if world.size > 1 else ParallelConfig(engine="single")
    return make_engine(config, EngineParts(model, make, "cpu", precision, 1.0), world)
