"""The guide to files and formats names what is really there."""

import json
import re
import sys

import numpy as np
import pytest
from house_files import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_hooks"))
import settings_tables

GUIDE = (ROOT / "docs/guides/formats.md").read_text("utf-8")
NAMES = set(re.findall(r"`([^`\n]+)`", GUIDE))


def read(path):
    return json.loads(path.read_text("utf-8"))


def listed_files():
    """Names in the trees of the guide."""
    return set(re.findall(r"^ {4,}([\w.-]+)/?(?:[\w-]*/)?(?= |$)", GUIDE, re.M))


def test_a_data_folder_is_as_described(data_folder):
    for path in data_folder.iterdir():
        assert path.name in listed_files()
    for path in (data_folder / "tokenizer").iterdir():
        assert path.name in listed_files()


def test_shards_are_read_as_described(data_folder):
    manifest = read(data_folder / "manifest.json")
    shard = manifest["splits"]["train"]["shards"][0]
    tokens = np.fromfile(data_folder / shard["tokens"]["path"], f"<{np.dtype(manifest['dtype']).str[1:]}")
    ends = np.fromfile(data_folder / shard["documents"]["path"], "<u8").astype(int)
    assert (tokens[ends - 1] == 2).all()
    assert ends[-1] == len(tokens) == shard["num_tokens"]


def test_a_run_is_as_described(pretrained, finetuned):
    for run in (pretrained, finetuned):
        for path in run.iterdir():
            assert path.name in listed_files() | {"checkpoints"}
    for path in (*(pretrained / "export").iterdir(), *next((pretrained / "checkpoints").iterdir()).iterdir()):
        assert path.name in NAMES


@pytest.mark.parametrize("name", ["manifest.json", "audit.json"])
def test_every_key_of_a_data_folder_is_named(name, data_folder):
    assert read(data_folder / name).keys() <= NAMES


def test_every_key_of_a_run_is_named(pretrained, finetuned):
    records = [
        json.loads(line)
        for run in (pretrained, finetuned)
        for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert {key for record in records for key in record} <= NAMES
    assert read(pretrained / "summary.json").keys() <= NAMES
    checkpoint = next((pretrained / "checkpoints").iterdir())
    assert read(checkpoint / "manifest.json").keys() <= NAMES
    assert read(finetuned / "evaluation.json").keys() <= NAMES


def test_every_reason_of_a_drop_is_named():
    text = "".join(path.read_text("utf-8") for path in (ROOT / "src/maskwright/corpus").rglob("*.py"))
    reasons = set(re.findall(r'\bDrop\("(\w+)"', text)) | set(
        re.findall(r'bad_lines\.add\(\w+, "(\w+)"', text)
    )
    assert len(reasons) > 5
    assert reasons <= NAMES


def test_every_error_is_in_the_guide_with_its_exit_code():
    from maskwright.core import errors

    guide = (ROOT / "docs/guides/errors.md").read_text("utf-8")
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind not in (errors.MaskwrightError, errors.UserError):
            assert re.search(rf"^\| `{name}` \|.*\| {kind.exit_code} \|$", guide, re.M), name


@pytest.mark.parametrize("section", sorted(settings_tables.config_classes()))
def test_the_page_of_settings_has_every_setting_with_its_meaning(section):
    page = settings_tables.on_page_markdown((ROOT / "docs/guides/settings.md").read_text("utf-8"))
    fields = list(settings_tables.fields_of(settings_tables.config_classes()[section]))
    assert fields
    for name, field, _ in fields:
        assert f"<code>{name}</code>" in settings_tables.settings_table(section).replace("<wbr>", "")
        assert field.description, f"{section}: {name} has no description"
    assert settings_tables.settings_table(section) in page


def test_settings_are_described_in_words():
    table = settings_tables.settings_table("pretrain")
    assert "| <code>optimizer.<wbr>lr</code> | number, > 0 | `0.0006` |" in table
    assert "| <code>data</code> | text | required |" in table
    assert "| <code>optimizer.<wbr>lr</code> | number, > 0 | `2e-05` |" in settings_tables.settings_table(
        "finetune"
    )
