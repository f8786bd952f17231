"""The layouts of text that the guide to the data shows are read as it says."""

import gzip
import json

import pytest
import yaml
import zstandard
from house_files import ROOT, blocks

import maskwright
from maskwright.core.config import parse_config
from maskwright.corpus import Audit, CorpusConfig, read_input
from maskwright.corpus.plan import plan_inputs

PAGE = ROOT / "docs/guides/data.md"
HTML = b"<html><body><article><p>The harbour was quiet that morning.</p></article></body></html>"


def recipe_with(text):
    return next(block for block in blocks(PAGE, "yaml") if text in block)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def warc_record():
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + HTML
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
        "WARC-Target-URI: https://example.org/\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n")


def write_tables(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    (folder / "hub/en").mkdir(parents=True)
    parquet.write_table(pyarrow.table({"body": ["a row"]}), folder / "hub/en/0.parquet")
    rows = pyarrow.table({"text": ["one", "two"]})
    name = "data-00000-of-00001.arrow"
    (folder / "saved-dataset").mkdir()
    with pyarrow.ipc.new_stream(folder / "saved-dataset" / name, rows.schema) as stream:
        stream.write_table(rows)
    write(folder / "saved-dataset/state.json", json.dumps({"_data_files": [{"filename": name}]}))


@pytest.fixture
def layouts(tmp_path, monkeypatch):
    """A folder with what the recipe of the formats names."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "books/one.txt", "A book.\n\nIts second chapter.")
    write(tmp_path / "sentences.txt.zst", zstandard.compress(b"One.\nTwo.\n"))
    write(tmp_path / "letters.txt", "Dear A,\nhello.\n\nDear B,\ngood bye.\n")
    for year, url in (("2023", "u/1"), ("2024", "u/2")):
        write(tmp_path / f"dump/{year}/a.jsonl", json.dumps({"content": "text", "url": url}) + "\n")
    write(tmp_path / "reviews.csv", 'x,5,"good, really"\n')
    write_tables(tmp_path)
    write(tmp_path / "crawl/a.warc.gz", warc_record())
    write(tmp_path / "extracted/AA/wiki_00", '<doc id="7" url="w" title="T">\nT\n\nText.\n</doc>\n')
    return tmp_path


def test_the_layouts_of_the_guide_are_read(layouts):
    pytest.importorskip("resiliparse")
    values = yaml.safe_load(recipe_with("sentences.txt.zst"))["prepare"]["corpus"]
    sources = parse_config(CorpusConfig, values, "guide").sources
    found = [
        document
        for task in plan_inputs(sources, 1 << 20)
        for document in read_input(task, sources[task.source_index], Audit())
    ]
    assert [document.id for document in found] == [
        "books:one.txt",
        "sentences:sentences.txt.zst#1",
        "sentences:sentences.txt.zst#2",
        "letters:letters.txt#1",
        "letters:letters.txt#4",
        "dump:u/1",
        "dump:u/2",
        "reviews:reviews.csv#1",
        "hub:0.parquet#1",
        "saved-dataset:data-00000-of-00001.arrow#1",
        "saved-dataset:data-00000-of-00001.arrow#2",
        "crawl:1",
        "wiki:7",
    ]
    assert found[7].text == "good, really"
    assert "harbour was quiet" in found[11].text


def test_the_rules_of_the_guide_clean_what_they_are_told_to(tmp_path, monkeypatch):
    pytest.importorskip("ftfy")
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load(recipe_with('"on": [fix_text]'))["prepare"]
    prose = "The boats went out with the tide, and the people of the town were to wait. "
    page = "".join(f"{prose}It was a day of wind number {number}.\n" for number in range(30))
    rows = [{"text": f"{page}Story {number} ends here, in a cafÃ©."} for number in range(40)]
    write(tmp_path / "pages.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "books.jsonl", "".join(json.dumps({"text": f"Book {n}"}) + "\n" for n in range(40)))
    write(tmp_path / "zh.jsonl", json.dumps({"text": "English only."}) + "\n")
    for source, name in zip(
        recipe["corpus"]["sources"], ("pages.jsonl", "zh.jsonl", "books.jsonl"), strict=True
    ):
        source["path"] = name
    recipe |= {"tokenizer": {"vocab_size": 300}, "validation_share": 0.3, "keep_documents": True}
    recipe["corpus"]["rules"]["off"] += ["language", "duplicate_ngrams", "top_ngrams"]
    recipe["corpus"]["sources"][1]["rules"]["off"] = ["language"]
    maskwright.prepare(recipe, output=tmp_path / "data", workers=1)
    audit = json.loads((tmp_path / "data/audit.json").read_text("utf-8"))
    kept = {name: source["documents"] for name, source in audit["sources"].items()}
    assert kept == {"crawl": 40, "crawl-zh": 0, "books": 40}, audit["drops"]
    assert audit["sources"]["crawl-zh"]["drops"] == {"too_few_characters": 1}
    documents = b"".join(
        zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        for path in sorted((tmp_path / "data/documents").iterdir())
    ).decode()
    assert "in a café." in documents
    assert "Book 7" in documents
