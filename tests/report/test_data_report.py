import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from synthetic_data import (
    CHINESE,
    CONFIG,
    EVIL,
    hostile,
    make_audit,
    make_manifest,
    make_timings,
    page_of,
    scrambled,
    write_data_folder,
)

from maskwright.core.config import parse_config
from maskwright.core.errors import StorageError
from maskwright.corpus.warnings import data_warnings
from maskwright.jobs.prepare_config import PrepareConfig
from maskwright.report import build_data_report

SECTIONS = [
    "From source to token",
    "What was left out",
    "Duplicates",
    "Test text in the data",
    "What is left",
    "Tokens",
    "Time by stage",
    "Files read",
    "Make it again",
]
PARTS = [
    "What became of the documents",
    "Amounts by source",
    "By reason",
    "By source",
    "Damaged input",
    "How much was repeated",
    "Near copies",
    "The largest groups",
    "Languages",
    "Lengths",
    "How the vocabulary fits",
    "Splits and shards",
]


class Page(HTMLParser):
    """Collects headings, attributes and texts, and fails on tags that do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.headings, self.words = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        if name not in {"meta", "link"}:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)

    def values(self, wanted):
        return [value for _, key, value in self.attributes if key == wanted]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data_folder(tmp_path_factory.mktemp("data") / "mixed")


@pytest.fixture(scope="module")
def page(folder):
    return Page(page_of(folder))


def audit_page(tmp_path, **changes):
    """The page of the realistic account with some of its keys replaced."""
    return Page(page_of(write_data_folder(tmp_path / "mixed", {**make_audit(), **changes})))


def test_the_page_lies_in_the_folder(folder):
    path = build_data_report(folder)
    assert path == folder / "data_report.html"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list(folder.glob("*.tmp*"))


def test_every_section_is_there_and_in_the_contents(page):
    assert page.headings[0] == "mixed"
    assert [heading for heading in page.headings if heading in SECTIONS] == SECTIONS
    assert [heading for heading in page.headings if heading in PARTS] == PARTS
    anchors = [value[1:] for name, key, value in page.attributes if (name, key) == ("a", "href")]
    ids = page.values("id")
    assert set(anchors) <= set(ids)
    assert len(anchors) == len(SECTIONS) + len(PARTS) + 1
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "words",
    [
        "1.40 M documents from 4 sources came in; 989 k of them (70.8 %) stayed and became 1.12 G tokens",
        "3 things to look at before training malformed_json: left out 329 records",
        "Documents in 1.40 M from 244 files",
        "Documents out 989 k 70.8 % of the documents in",
        "Text out 4.44 GiB 74.8 % of the text in",
        "Bytes per token 4.24",
        "Time taken 4 min 26 s 24.0 MB/s of text in, 8 workers",
        "web-en 1.00 M 612 k 61.0 % 3.63 GiB 2.15 GiB 59.2 % 531 M 1.00 × 37.2 %",
        "exact copies 121,468 (8.7 %)",
        "left out by rules 152,940 (10.9 %)",
        "exact duplicate 121 k 8.7 %",
        "malformed JSON 329 < 0.1 %",
        "web-en:part-0000.jsonl.zst#4: 18 characters: Read more",
        "Shorter than corpus.min_characters",
        "Malformed lines left out 329 in 2 files",
        "Near copies 98,203 7.0 % of those read",
        "129+ documents 5",
        "Of pairs as alike as asked for, 97 % meet",
        "18,204 documents · We use cookies",
        "web-en:part-0003.jsonl.zst#19, web-en:part-0003.jsonl.zst#44",
        "Documents with test text 212 < 0.1 % of those read",
        "sst2 611 261",
        "Chinese (zh) 384 MiB 8.5 %",
        "Half of the documents are shorter than 4,096 characters",
        "Longest document 1.81 M characters",
        "German (de) 17.5 M 2.91 < 0.1 % 31.0 %",
        "train 1,111,279,871 979,520 12",
        "Stored as uint16, 2 bytes a token",
        "clean reads, normalises, applies the rules, names the language 1 min 32 s 244 5.94 GiB 69.0",
        "Workers 8 Runner local Machine Example CPU @ 2.4 GHz Cores 8 Memory 32.0 GiB",
        "Files read: the first 200 of 244",
        "books.parquet books parquet 1.00 GiB",
    ],
)
def test_main_numbers_are_on_the_page(page, words):
    assert words in page.text


def test_amounts_are_exact_for_those_who_point_at_them(page):
    titles = set(page.values("title"))
    assert {"1,397,717 documents", "4,764,562,630 bytes", "1,122,504,920 tokens", "266.02 seconds"} <= titles
    assert "0.0004 of the tokens" in titles
    assert "crawl/2025-week-00/part-0000-of-0240-english.jsonl.zst" in titles


def test_high_shares_are_marked(page):
    classes = " ".join(page.values("class")).split()
    # The box of warnings, the unknown tokens of French, the single bytes of German.
    assert classes.count("heed") == 3
    assert "fine" not in classes


def test_chinese_stays_chinese(folder, page):
    assert page.text.count(CHINESE) >= 3
    assert CHINESE in (folder / "data_report.html").read_text(encoding="utf-8")


def test_nothing_comes_from_outside(folder, page):
    written = page_of(folder)
    assert "http://" not in written
    assert "https://" not in written
    assert "url(" not in written
    assert written.count("<script") == 1
    assert "default-src &#x27;none&#x27;" in written
    assert not [key for _, key, _ in page.attributes if key.startswith("on") or key == "src"]


def test_the_same_files_give_the_same_bytes(folder):
    assert page_of(folder) == page_of(folder)


def test_hostile_text_is_escaped_everywhere(tmp_path):
    parts = [hostile(part) for part in (make_audit(), make_timings(), make_manifest())]
    written = page_of(write_data_folder(tmp_path / "mixed", *parts, config=f"{EVIL}: {EVIL}\n"))
    found = Page(written)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]
    assert written.count("&lt;script&gt;alert") > 400
    assert [heading for heading in found.headings if heading in SECTIONS] == SECTIONS


def test_hostile_names_of_folders_are_escaped(tmp_path):
    found = Page(page_of(write_data_folder(tmp_path / "<b>bold & co")))
    assert found.headings[0] == "<b>bold & co"
    assert found.tags.count("b") == Page(page_of(write_data_folder(tmp_path / "plain"))).tags.count("b")


def test_an_empty_folder_says_what_is_not_there(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    found = Page(page_of(folder))
    for words in (
        "mixed/audit.json is missing.",
        "mixed/timings.json is missing.",
        "mixed/manifest.json is missing.",
        "mixed/config.yaml is missing.",
        "maskwright prepare --resume finishes a folder.",
        "The account holds no list of warnings, so nobody has looked for any.",
        "The account names no sources.",
        "The account does not say what was left out.",
        "The account does not say which documents were copies.",
        "The account does not say whether test sets were looked for.",
        "The account names no languages;",
        "The account holds no lengths of documents.",
        "The account does not tell tokens by language.",
        "No manifest.json names any shards; maskwright prepare makes one.",
        "No stage was timed, or timings.json is missing.",
        "The account names no files.",
        "it cannot be made again from this page",
    ):
        assert words in found.text
    assert [heading for heading in found.headings if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("name", ["audit.json", "timings.json", "manifest.json", "config.yaml"])
def test_a_missing_file_costs_only_its_parts(tmp_path, name):
    folder = write_data_folder(tmp_path / "mixed")
    (folder / name).unlink()
    found = Page(page_of(folder))
    assert f"mixed/{name} is missing." in found.text
    assert found.text.count("is missing.") == (2 if name == "timings.json" else 1)
    assert [heading for heading in found.headings if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("content", ["", "null", "[]", '"text"', '{"torn": ', "{}", '{"sources": 3}'])
def test_damaged_files_never_stop_the_report(tmp_path, content):
    folder = write_data_folder(tmp_path / "mixed")
    for path in folder.glob("*.json"):
        path.write_text(content)
    Page(page_of(folder))


@pytest.mark.parametrize(
    "replacement", [None, "text", float("nan"), float("inf"), -1, 0, True, [], {}, 10**400, 1e308, 0.5]
)
def test_values_of_any_kind_never_stop_the_report(tmp_path, replacement):
    folder = write_data_folder(tmp_path / "mixed")
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(scrambled(json.loads(path.read_text()), replacement)))
    written = page_of(folder)
    Page(written)
    assert not re.search(r"(?:left|width|top|height|bottom):-?(?:nan|inf)", written)


@pytest.mark.parametrize("key", sorted(make_audit()))
@pytest.mark.parametrize("value", [None, {}, [], 7, "text", {"a": None}, [[1, 2]], [None]])
def test_each_key_may_be_missing_or_wrong(tmp_path, key, value):
    assert [name for name in audit_page(tmp_path, **{key: value}).headings if name in SECTIONS] == SECTIONS


def test_no_warnings_are_said_to_be_none(tmp_path):
    found = audit_page(tmp_path, warnings=[])
    assert "No warnings. Sources, repetition, damaged files" in found.text
    assert "to look at before training" not in found.text


def test_one_warning_is_one_thing(tmp_path):
    assert "1 thing to look at before training only this" in audit_page(tmp_path, warnings=["only this"]).text


def test_the_warnings_of_the_made_up_account_are_those_of_the_checks():
    found = data_warnings(make_audit())
    assert [text for text in make_audit()["warnings"] if text != CHINESE and text not in found] == []


def test_what_was_not_looked_for_is_said_so(tmp_path):
    found = audit_page(tmp_path, duplicates={"exact": {"documents": 4}}, contamination={})
    assert "Exact copies 4 < 0.1 % of those read Repeated lines not looked for" in found.text
    assert "Near copies not looked for" in found.text
    assert "No test sets were compared with this data." in found.text
    assert "What the search finds" not in found.text


def test_flagged_documents_are_said_to_be_kept(tmp_path):
    found = audit_page(tmp_path, contamination={"documents": 3, "action": "flag", "evaluation": ["a"]})
    assert "of those read, flagged and kept" in found.text


def test_nothing_left_out_and_nothing_damaged(tmp_path):
    found = audit_page(tmp_path, drops={}, repairs={}, bad_lines={})
    assert "Nothing was left out: every document that was read is in the data." in found.text
    assert "No damaged record was met" in found.text


def test_many_sources_are_joined_in_the_chart_and_named_in_the_table(tmp_path):
    row = {"documents": 3, "documents_read": 4, "bytes": 9, "drops": {"too_short": 1}}
    sources = {f"source-{number:03}": row for number in range(150)}
    found = audit_page(tmp_path, sources=sources)
    assert "144 other sources" in found.text
    assert "source-005 4 source-006" not in found.text
    assert "50 smaller sources are not shown; audit.json has them." in found.text
    # Without tokens there is no share of an epoch.
    assert "source-099 4 3 75.0 % – 9 B – – –" in found.text


def test_an_older_account_without_drops_of_sources_has_a_chart_of_what_stayed(tmp_path):
    sources = {"a": {"documents": 3, "documents_read": 4}, "b": {"documents": 5}}
    found = audit_page(tmp_path, sources=sources)
    assert "kept 8 (100.0 %)" in found.text


def test_a_stage_that_an_earlier_start_did_in_part_has_no_rate(page):
    row = page.text.partition("sample chooses text to train the tokenizer on")[2]
    assert row.startswith(" 2.02 s 40 12 by this start 5.94 GiB – – ")


def test_machines_may_be_a_word(tmp_path):
    timings = {"machine": "a laptop", "stages": [{"name": "clean", "seconds": 0.5, "tasks": 1}]}
    found = Page(page_of(write_data_folder(tmp_path / "mixed", timings=timings)))
    assert "Machine a laptop" in found.text
    assert "clean 0.500 s 100.0 %" in found.text


def test_all_files_are_named_where_they_are_few(tmp_path):
    inputs = [{"source": "a", "label": "x.txt", "format": "text", "bytes": 5, "documents": 2}]
    found = audit_page(tmp_path, inputs=inputs, num_inputs=1)
    assert "Files read: all" in found.text
    assert "x.txt a text 5 B 2" in found.text


def test_the_recipe_on_the_page_gives_the_same_settings(folder, page):
    lines = page_of(folder).partition("again.yaml</summary>")[2].partition("</pre>")[0]
    text = re.sub(r"<[^>]+>", "", lines)
    section = yaml.safe_load(text)["prepare"]
    assert section == yaml.safe_load(CONFIG)
    section.pop("format_version")
    assert parse_config(PrepareConfig, section, "page").corpus.sources[0].name == "wiki-en"
    assert "maskwright prepare again.yaml --output again" in page.text


def test_a_refusing_storage_is_named(tmp_path, monkeypatch):
    folder = write_data_folder(tmp_path / "mixed")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match=r"data_report.html: No space left on device; free some space"):
        build_data_report(folder)
    assert not (folder / "data_report.html").exists()


def test_the_data_report_needs_no_torch():
    program = "import sys, maskwright.report.data_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stages_too_short_to_time_have_no_rate_and_those_without_tasks_no_row(tmp_path):
    stages = [
        {"name": "count", "tasks": 0, "seconds": 0.0},
        {"name": "exact", "tasks": 3, "executed": 3, "seconds": 0.003, "documents": 9, "bytes": 2048},
    ]
    found = Page(page_of(write_data_folder(tmp_path / "mixed", timings={"stages": stages}))).text
    row = found.partition("finds equal documents over all files")[2].replace("\N{NO-BREAK SPACE}", " ")
    assert row.startswith(" < 0.1 s 3 2.00 KiB – – ")
    assert "counts the lines of large files" not in found


def test_the_files_of_a_real_folder_fit(data_folder):
    found = Page((data_folder / "data_report.html").read_text(encoding="utf-8"))
    assert not re.search(r"data/[\w.]+ is missing", found.text)
    for heading in (
        "What became of the documents",
        "Lengths",
        "How the vocabulary fits",
        "Splits and shards",
    ):
        assert heading in found.headings
    for words in ("names no sources", "holds no lengths", "No stage was timed", "The account names no files"):
        assert words not in found.text
