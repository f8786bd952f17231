"""Recipes: found by path or name, cut into sections, changed by overrides."""

import pytest

from maskwright.core.config import Config
from maskwright.core.errors import ConfigError
from maskwright.core.recipes import SECTIONS, list_recipes, load_recipe, recipe_sections


class Pretrain(Config):
    num_steps: int = 10
    lr: float = 1e-3


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("description: a test\npretrain:\n  num_steps: 20\nfinetune:\n")
    return str(path)


def test_sections_without_the_description(recipe):
    assert recipe_sections(recipe) == {"pretrain": {"num_steps": 20}, "finetune": {}}


def test_a_section_with_overrides(recipe):
    config = load_recipe(Pretrain, "pretrain", recipe, ["lr=5e-4"])
    assert config == Pretrain(num_steps=20, lr=5e-4)
    assert load_recipe(Pretrain, "finetune", recipe, []) == Pretrain()


def test_no_recipe_means_the_defaults():
    assert load_recipe(Pretrain, "pretrain", None, ["num_steps=3"]) == Pretrain(num_steps=3)


def test_both_yaml_suffixes(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("")
    assert recipe_sections(str(path)) == {}


def test_a_wrong_key_names_recipe_and_section(recipe):
    with pytest.raises(ConfigError) as caught:
        load_recipe(Pretrain, "pretrain", recipe, ["num_step=3"])
    expected = f'{recipe}, section pretrain: unknown key "num_step"; did you mean "num_steps"?'
    assert str(caught.value) == expected
    with pytest.raises(ConfigError, match="defaults, section pretrain: \"lr\" is 'x'"):
        load_recipe(Pretrain, "pretrain", None, ["lr=x"])


def test_a_section_that_is_not_there(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"has no section 'prepare' \(it has pretrain, finetune\)"):
        load_recipe(Pretrain, "prepare", recipe, [])
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"\(it has nothing\); choose another recipe"):
        load_recipe(Pretrain, "prepare", str(empty), [])


def test_an_unknown_section(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("pretain: {}\n")
    with pytest.raises(ConfigError, match=r'a\.yaml: unknown section "pretain"; did you mean "pretrain"\?'):
        recipe_sections(str(path))
    path.write_text("7: {}\n")
    with pytest.raises(ConfigError, match='unknown section "7"; known: ' + ", ".join(sorted(SECTIONS))):
        recipe_sections(str(path))


def test_a_section_without_keys(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("pretrain: 3\n")
    with pytest.raises(ConfigError, match='section "pretrain" is 3, expected keys inside it'):
        recipe_sections(str(path))


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such recipe file; check the path"):
        recipe_sections(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match='unknown recipe "no-such-recipe"; known: '):
        recipe_sections("no-such-recipe")


def test_every_shipped_recipe_is_readable():
    names = list_recipes()
    assert names == sorted(names)
    for name in names:
        assert recipe_sections(name), name
