"""Every command that a page shows is one that the program understands."""

import re
import shutil

import pytest
import typer
import yaml
from house_files import READMES, ROOT, blocks, commands, markdown_files

from maskwright.cli.main import app

GROUP = typer.main.get_command(app)
SHOWN = sorted(
    {
        (str(page.relative_to(ROOT)), tuple(words))
        for page in markdown_files()
        for words in commands(page, "maskwright")
        if "COMMAND" not in words and "FOLDER" not in words
    }
)
DRY = {"prepare", "pretrain", "finetune", "evaluate", "demo"}


def recipe_of(page):
    """The recipe that a page shows as `mine.yaml`; the README's where it shows none."""
    for block in blocks(ROOT / page, "yaml"):
        if {"prepare", "pretrain", "finetune"} <= set(yaml.safe_load(block)):
            return block
    return recipe_of(READMES[0].name)


def test_pages_show_commands():
    assert {words[0] for _, words in SHOWN if words} >= {*DRY, "predict", "inspect", "doctor"}


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_shown_command_is_understood(page, words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(recipe_of(page), encoding="utf-8")
    verb = words[0]
    if verb in DRY:
        # `finetune` of a recipe that only `demo` completes lacks what the page says in words.
        result = command(*words, *([] if "--dry-run" in words or "--help" in words else ["--dry-run"]))
        complete = "data=" in " ".join(words) or verb in {"prepare", "demo"} or "model=" in " ".join(words)
        if result.code and not complete:
            assert re.search(r'"(data|model)" is missing', result.err)
        else:
            assert result.code == 0, result.err
    elif verb.startswith("--"):
        assert command(*words).code == 0
    elif len(words) == 1:
        assert verb in GROUP.commands  # a sentence names it
    else:
        # Read the arguments and stop there: the folders exist in the story of the page only.
        with GROUP.commands[verb].make_context(verb, list(words[1:])) as context:
            assert context.params


@pytest.mark.parametrize("page", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shown_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for words in commands(page, "make"):
        for word in words:
            if "=" not in word and word.islower():
                assert re.search(rf"^{re.escape(word)}:", makefile, re.M), word


@pytest.mark.parametrize("verb", sorted(GROUP.commands))
def test_the_guide_names_every_option(verb):
    guide = (ROOT / "docs/guides/cli.md").read_text("utf-8")
    assert f"`{verb}`" in guide
    for parameter in GROUP.commands[verb].params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert f"`{option}" in guide, option


def test_the_guide_names_every_shipped_recipe_and_variable():
    from maskwright.cli.main import DEBUG
    from maskwright.core.recipes import list_recipes

    guide = (ROOT / "docs/guides/cli.md").read_text("utf-8")
    for name in (*list_recipes(), DEBUG, "MASKWRIGHT_LOG"):
        assert f"`{name}`" in guide
    read = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"\bMASKWRIGHT_[A-Z]+\b", path.read_text("utf-8"))
    }
    assert read == {DEBUG, "MASKWRIGHT_LOG"}


def test_make_prints_its_targets_without_an_environment(tmp_path):
    import subprocess

    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    listed = subprocess.run(["make"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "test-all", "check", "bench", "docs", "format", "clean"):
        assert re.search(rf"^  {target} ", listed, re.M), target
    assert not (tmp_path / ".venv").exists()


def test_make_says_when_python_is_too_old(tmp_path):
    import subprocess

    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ended = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "Python 3.11 or newer is needed" in ended.stderr
    assert not (tmp_path / ".venv").exists()
