"""Engines around a model of two tiny layers, the same on every rank."""

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


def tiny_engine(world, config, precision="fp32", **optimizer):
    """An engine in several processes, `single` in one."""
    model = MaskedLM(SHAPE)
    initialize(model, 3, 0.1)
    make = optimizer_factory(OptimizerConfig(weight_decay=0.1, **optimizer), num_heads=2)
    config = config if world.size > 1 else ParallelConfig(engine="single")
    return make_engine(config, EngineParts(model, make, "cpu", precision, 1.0), world)
