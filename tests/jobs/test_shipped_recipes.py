"""Every shipped recipe loads, and the published models have the published settings."""

import pytest

from maskwright.core.config import parse_config
from maskwright.core.recipes import list_recipes, load_recipe, recipe_sections
from maskwright.jobs.demo import resolve_sections
from maskwright.jobs.prepare import PrepareConfig
from maskwright.tasks.classification.finetune import FinetuneConfig
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.schedules import learning_rate

CLASSES = {"prepare": PrepareConfig, "pretrain": PretrainConfig, "finetune": FinetuneConfig}

# arXiv 1907.11692, table 9 ("hyperparameters for pretraining"), and section 3.1 for weight decay.
TABLE_9 = {
    "roberta-base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "warmup_steps": 24_000,
        "peak_learning_rate": 6e-4,
    },
    "roberta-large": {
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "warmup_steps": 30_000,
        "peak_learning_rate": 4e-4,
    },
}


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_section_loads(recipe, tmp_path):
    sections = recipe_sections(recipe)
    if set(CLASSES) <= set(sections):
        sections = resolve_sections(recipe, tmp_path, [])
    assert sections
    for name, values in sections.items():
        parse_config(CLASSES[name], values, recipe)


@pytest.mark.parametrize("recipe", TABLE_9)
def test_the_published_settings(recipe):
    published = TABLE_9[recipe]
    config = load_recipe(PretrainConfig, "pretrain", recipe, [])
    shape = config.model.resolve(50_265, config.sequence_length)
    for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"):
        assert getattr(shape, name) == published[name]
    assert shape.head_size == 64
    assert (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob) == (0.1, 0.1)
    assert (shape.vocab_size, shape.max_position_embeddings) == (50_265, 514)
    assert config.batch.sequences == 8192
    assert config.steps == 500_000
    assert config.sequence_length == 512
    assert config.optimizer.lr == published["peak_learning_rate"]
    assert (config.optimizer.beta1, config.optimizer.beta2, config.optimizer.eps) == (0.9, 0.98, 1e-6)
    assert config.optimizer.weight_decay == 0.01
    assert config.max_grad_norm == 0.0
    assert config.schedule.name == "linear"
    masking = config.masking
    assert (masking.mlm_probability, masking.mask_share, masking.random_share) == (0.15, 0.8, 0.1)

    def rate(step):
        return learning_rate(config.schedule, config.optimizer.lr, step, config.steps)

    warmup = published["warmup_steps"]
    assert rate(warmup) == published["peak_learning_rate"]
    assert rate(warmup // 2) == pytest.approx(published["peak_learning_rate"] / 2)
    assert rate(config.steps) < published["peak_learning_rate"] / 100_000
    assert load_recipe(PrepareConfig, "prepare", recipe, []).tokenizer.vocab_size == 50_265
