"""The guide to files and formats names what is really there."""

import json
import re
import sys

import numpy as np
import pytest
from house_files import ROOT

import maskwright
import tiny_world

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


@pytest.mark.parametrize("name", ["manifest.json", "audit.json", "timings.json", "inputs.json"])
def test_every_key_of_a_data_folder_is_named(name, data_folder):
    assert read(data_folder / name).keys() <= NAMES


def test_every_inner_key_of_a_data_folder_is_named(data_folder):
    audit, timings = read(data_folder / "audit.json"), read(data_folder / "timings.json")
    splits = read(data_folder / "manifest.json")["splits"].values()
    rows = [
        *audit["sources"].values(),
        *audit["splits"].values(),
        *audit["tokens_by_language"].values(),
        *audit["inputs"],
        *timings["stages"],
        *splits,
        *(shard for split in splits for shard in split["shards"]),
    ]
    assert {key for row in rows for key in row} <= NAMES


def test_what_deduplication_and_evaluation_sets_add_is_named(corpus_file, tmp_path):
    values = tiny_world.prepare_values(corpus_file)
    corpus = {
        **values["corpus"],
        "deduplication": {"near": {}, "lines": {}},
        "contamination": {"evaluation": [{"path": str(corpus_file), "name": "all"}], "action": "flag"},
    }
    changes = {"corpus": corpus, "sentences": True, "keep_documents": True}
    maskwright.prepare({**values, **changes}, output=tmp_path / "data", workers=1)
    audit = read(tmp_path / "data" / "audit.json")
    assert {path.name for path in (tmp_path / "data").iterdir()} <= listed_files()
    assert {path.suffix for path in (tmp_path / "data" / "train").iterdir()} == {
        ".tokens",
        ".documents",
        ".sentences",
    }
    assert audit["duplicates"].keys() == {"exact", "lines", "near"}
    kinds = [*audit["duplicates"].values(), *audit["duplicates"]["near"]["largest"]]
    found = {key for kind in kinds for key in kind} | audit["contamination"].keys()
    found |= audit["contamination"]["counts"]["all"].keys()
    assert found <= NAMES


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


def corpus_code():
    return "".join(path.read_text("utf-8") for path in (ROOT / "src/maskwright/corpus").rglob("*.py"))


def test_every_reason_of_a_drop_is_named():
    text = corpus_code()
    reasons = set(re.findall(r'\bDrop\(\s*"(\w+)"', text)) | set(
        re.findall(r'\bbad_\w+\.add\([\w.]+, "(\w+)"', text)
    )
    assert len(reasons) > 30
    assert reasons <= NAMES


def test_every_reason_that_a_docstring_names_is_in_the_guide():
    sentences = re.findall(r"\bdrops\b[^.]*?\breasons? (`[^.]*)\.", corpus_code())
    reasons = {name for sentence in sentences for name in re.findall(r"`(\w+)`", sentence)}
    assert len(reasons) > 30
    assert reasons <= NAMES


def test_every_rule_is_in_the_guide_with_its_presets():
    from maskwright.corpus.rules import PRESETS, RULE_ORDER

    guide = (ROOT / "docs/guides/data.md").read_text("utf-8")
    rows = {
        cells[0].strip("`"): cells[3]
        for line in guide.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5
    }
    assert [name for name in rows if name in RULE_ORDER] == list(RULE_ORDER)
    for rule in RULE_ORDER:
        assert rows[rule] == ", ".join(name for name, rules in PRESETS.items() if rule in rules), rule


def test_every_format_is_in_the_guide_with_its_suffixes():
    from maskwright.corpus.readers import READERS, SUFFIXES

    guide = (ROOT / "docs/guides/data.md").read_text("utf-8")
    table = guide[guide.index("### Formats") : guide.index("### Separators")]
    names = set(re.findall(r"`([^`]+)`", table))
    assert READERS.keys() | SUFFIXES.keys() <= names


def test_the_guide_to_the_data_names_every_stage():
    from maskwright.jobs.preparation.pipeline import stage_names
    from maskwright.jobs.prepare import PrepareConfig

    guide = (ROOT / "docs/guides/data.md").read_text("utf-8")
    everything = {
        "deduplication": {"near": {}, "lines": {}},
        "contamination": {"evaluation": [{"path": "x"}]},
    }
    for name, _ in stage_names(PrepareConfig.model_validate({"corpus": everything})):
        assert f"`{name}`" in guide


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
    table = settings_tables.settings_table(section).replace("<wbr>", "")
    for name, field, _ in fields:
        assert f"<code>{name}</code>" in table
        assert field.description, f"{section}: {name} has no description"
    assert settings_tables.settings_table(section) in page


def test_settings_that_are_told_once_are_the_same_twice():
    from maskwright.corpus import CorpusConfig, SourceConfig

    assert settings_tables.SAME == {"corpus.sources[].rules": "corpus.rules"}
    rules = [
        settings_tables.model_inside(kind.model_fields["rules"].annotation)[0]
        for kind in (SourceConfig, CorpusConfig)
    ]
    assert rules[0] is rules[1] is not None


def test_sections_that_may_be_left_out_say_so():
    table = settings_tables.settings_table("prepare")
    for name in ("corpus.<wbr>deduplication.<wbr>near", "corpus.<wbr>contamination", "topics"):
        assert f"| <code>{name}</code> | section, null | `null` |" in table
    assert "| <code>corpus.<wbr>sources[].<wbr>rules</code> | as `corpus.rules`, null | `null` |" in table
    assert "| <code>mixture.<wbr>epochs</code> | mapping of text to number, null | `null` |" in table


def test_settings_are_described_in_words():
    table = settings_tables.settings_table("pretrain")
    assert "| <code>optimizer.<wbr>lr</code> | number, > 0 | `0.0006` |" in table
    assert "| <code>data</code> | text | required |" in table
    assert "| <code>optimizer.<wbr>lr</code> | number, > 0 | `2e-05` |" in settings_tables.settings_table(
        "finetune"
    )
