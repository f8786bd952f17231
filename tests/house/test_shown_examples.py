"""YAML, Python and JSON on the pages are what they claim to be; the README's way works from end to end."""

import ast
import importlib
import inspect
import json
from pathlib import Path

import pytest
import yaml
from house_files import READMES, ROOT, blocks, commands, markdown_files

import maskwright
import tiny_world
from maskwright.core.config import apply_overrides, parse_config
from maskwright.core.recipes import recipe_sections

PAGES = {str(page.relative_to(ROOT)): page for page in markdown_files()}
# What `demo` fills in, and an example may leave out.
FILLED = {"pretrain": ["data=data/mine"], "finetune": ["model=runs/mine"]}


def examples(*languages):
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name, page in PAGES.items()
        for number, block in enumerate(blocks(page, *languages), 1)
    ]


def config_class(section):
    from maskwright.jobs.prepare import PrepareConfig
    from maskwright.tasks.classification.finetune import FinetuneConfig
    from maskwright.training.pretrain_config import PretrainConfig

    return {"prepare": PrepareConfig, "pretrain": PretrainConfig, "finetune": FinetuneConfig}[section]


@pytest.mark.parametrize("block", examples("yaml"))
def test_a_shown_recipe_is_one(block, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block, encoding="utf-8")
    sections = recipe_sections(str(path))
    assert sections
    for name, values in sections.items():
        parse_config(config_class(name), apply_overrides(values, FILLED.get(name, [])), name)


@pytest.mark.parametrize("block", examples("json"))
def test_shown_json_is_json(block):
    assert json.loads(block)


@pytest.mark.parametrize("block", examples("python"))
def test_shown_python_calls_what_exists(block):
    tree = ast.parse(block)
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {
                alias.asname or alias.name: importlib.import_module(alias.name) for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert hasattr(importlib.import_module(node.module), alias.name), alias.name
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        if isinstance(owner, ast.Name) and modules.get(owner.id) is maskwright:
            signature = inspect.signature(getattr(maskwright, node.func.attr))
            keywords = {keyword.arg: None for keyword in node.keywords}
            signature.bind(*[None] * len(node.args), **keywords)


@pytest.fixture
def story(tmp_path, monkeypatch):
    """A folder in which the README's commands find what they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    tiny_world.write_corpus(tmp_path / "texts" / "corpus.jsonl")
    written = tiny_world.write_labelled(tmp_path / "written")
    for name in ("train", "test"):
        rows = [json.loads(line) for line in Path(written[name]).read_text("utf-8").splitlines()]
        lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}".replace("\n", " ") for row in rows)]
        target = tmp_path / "labels" / f"{name}.tsv"
        target.parent.mkdir(exist_ok=True)
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(blocks(READMES[0], "yaml")[0], encoding="utf-8")
    return tmp_path


SMALLER = {
    "prepare": ["corpus.min_characters=1", "validation_share=0.1", "tokenizer.vocab_size=400"],
    "pretrain": [
        "model.size=tiny",
        "model.hidden_size=32",
        "sequence_length=32",
        "batch.sequences=4",
        "steps=4",
        "evaluation.sequences=8",
        "precision=fp32",
    ],
    "finetune": ["epochs=0.2", "precision=fp32"],
    "evaluate": [],
    "predict": [],
}
SMALLER["demo"] = [f"{name}.{text}" for name in ("prepare", "pretrain", "finetune") for text in SMALLER[name]]


def test_the_commands_of_the_readme_work_in_their_order(story, command):
    way = [words for words in commands(READMES[0], "maskwright") if "mine" in " ".join(words)]
    way = [words for words in way if "roberta-base" not in words and "steps=9000" not in words]
    way = [words for words in way if "shared/mine" not in words]  # on a cluster; tested with the runners
    way = [words for words in way if words[0] != "launch"]  # on many GPUs; tested with the launcher
    assert [words[0] for words in way] == [
        "demo",
        "demo",
        "prepare",
        "pretrain",
        "finetune",
        "evaluate",
        "predict",
    ]
    for words in way:
        # A run of the same name as that of the demo goes beside it.
        result = command(*(word.replace("runs/mine", "steps/mine") for word in words), *SMALLER[words[0]])
        assert result.code == 0, result.err
    assert (story / "runs" / "mine" / "report.html").exists()
    assert (story / "steps" / "mine-classifier" / "evaluation.json").exists()


def test_the_python_of_the_readme_works(story, capsys):
    sections = yaml.safe_load((story / "mine.yaml").read_text(encoding="utf-8"))
    for name, overrides in SMALLER.items():
        if name in sections:
            sections[name] = apply_overrides(sections[name], overrides)
    (story / "mine.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    ours, theirs = blocks(READMES[0], "python")
    exec(compile(ours, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2] in tiny_world.TOPICS
    assert "token" in printed[-1]
    found = {}
    exec(compile(theirs, "README.md", "exec"), found)
    assert found["model"].config.vocab_size == len(found["tokenizer"])
