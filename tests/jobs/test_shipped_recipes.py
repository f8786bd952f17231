"""Every shipped recipe loads, and the published models have the published settings."""

import pytest

from maskwright.core.config import parse_config
from maskwright.core.recipes import list_recipes, load_recipe, recipe_sections
from maskwright.jobs.demo import resolve_sections
from maskwright.jobs.prepare import PrepareConfig
from maskwright.tasks.classification.finetune import FinetuneConfig
from maskwright.training.pretrain_config import PretrainConfig
from maskwright.training.schedules import BatchWarmup, rate_at

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
    shape = config.model.resolve(config.sequence_length, vocab_size=50_265, pad_token_id=1)
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
    assert (config.optimizer.name, config.format.name, config.attention) == (
        "adamw",
        "full-sentences",
        "window",
    )
    masking = config.masking
    assert (masking.mlm_probability, masking.mask_share, masking.random_share) == (0.15, 0.8, 0.1)

    def rate(step):
        return rate_at(config.schedule, config.optimizer.lr, step=step, total_steps=config.steps)

    warmup = published["warmup_steps"]
    assert rate(warmup) == published["peak_learning_rate"]
    assert rate(warmup // 2) == pytest.approx(published["peak_learning_rate"] / 2)
    assert rate(config.steps) < published["peak_learning_rate"] / 100_000
    assert load_recipe(PrepareConfig, "prepare", recipe, []).tokenizer.vocab_size == 50_265


PRETRAINING = [name for name in list_recipes() if name != "demo"]


def both(recipe):
    return (
        load_recipe(PrepareConfig, "prepare", recipe, []),
        load_recipe(PretrainConfig, "pretrain", recipe, []),
    )


def test_what_is_shipped():
    assert list_recipes() == [
        "1h-gpu",
        "24h-gpu",
        "chinese",
        "dapt",
        "demo",
        "extend-vocabulary",
        "laptop",
        "roberta-base",
        "roberta-large",
        "roberta-xl",
        "roberta-xxl",
        "tapt",
    ]


@pytest.mark.parametrize("recipe", PRETRAINING)
def test_the_prepared_data_has_what_pretraining_needs(recipe):
    prepare, pretrain = both(recipe)
    if pretrain.format.name != "windows":
        assert prepare.sentences
    if pretrain.init_from is not None:
        assert prepare.tokenizer.path == pretrain.init_from
    assert pretrain.extend_vocabulary == (prepare.tokenizer.extend > 0)
    assert (pretrain.model.type == "bert") == (prepare.tokenizer.kind == "wordpiece")


@pytest.mark.parametrize("recipe", PRETRAINING)
def test_batches_grow_to_whole_micro_batches(recipe):
    batch = load_recipe(PretrainConfig, "pretrain", recipe, []).batch
    growth = BatchWarmup(batch.sequences, batch.micro_sequences, batch.warmup_from, batch.warmup_samples)
    assert growth.sequences_at(batch.warmup_samples) == batch.sequences
    assert growth.sequences_at(0) == (batch.warmup_from or batch.sequences)
    assert batch.sequences % batch.micro_sequences == 0


@pytest.mark.parametrize(("recipe", "hours"), [("24h-gpu", 24), ("1h-gpu", 1), ("laptop", 1)])
def test_budgets_are_of_time(recipe, hours):
    config = load_recipe(PretrainConfig, "pretrain", recipe, [])
    assert config.schedule.budget_seconds == 3600 * hours
    assert (config.device == "cpu") == (recipe == "laptop")


def test_the_night_that_the_laptop_recipe_speaks_of():
    config = load_recipe(PretrainConfig, "pretrain", "laptop", ["schedule.budget_seconds=9h"])
    assert config.schedule.budget_seconds == 9 * 3600


# arXiv 2004.10964, table 13; the batch of 2,058 sequences is a power of two here.
TABLE_13 = {"dapt": (2048, 5e-4), "tapt": (256, 1e-4), "extend-vocabulary": (256, 1e-4)}


@pytest.mark.parametrize("recipe", TABLE_13)
def test_continued_pretraining_is_as_published(recipe):
    config = load_recipe(PretrainConfig, "pretrain", recipe, [])
    assert (config.batch.sequences, config.optimizer.lr) == TABLE_13[recipe]
    constants = config.optimizer
    assert (constants.beta1, constants.beta2, constants.eps, constants.weight_decay) == (
        0.9,
        0.98,
        1e-6,
        0.01,
    )
    if recipe != "extend-vocabulary":
        assert (config.schedule.name, config.schedule.warmup_share) == ("linear", 0.06)
    if recipe != "tapt":
        assert config.steps == 12_500


def test_chinese_masks_words_of_characters():
    prepare, pretrain = both("chinese")
    assert (prepare.words.segmenter, pretrain.masking.unit) == ("jieba", "word")
    assert prepare.tokenizer.vocab_size == 21_128
    assert (pretrain.batch.sequences, pretrain.steps, pretrain.sequence_length) == (384, 1_000_000, 512)
    shape = pretrain.model.resolve(512, vocab_size=21_128, pad_token_id=0)
    assert (shape.model_type, shape.type_vocab_size, shape.layer_norm_eps) == ("bert", 2, 1e-12)
    assert (shape.max_position_embeddings, pretrain.predicts_next_sentence) == (512, False)
