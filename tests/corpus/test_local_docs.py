from __future__ import annotations

import pytest
from corpus_helpers import read
from environment_helper import install, make_environment

from maskwright.core.errors import MaskwrightError
from maskwright.corpus.local_docs import (
    SPLITS,
    DocModule,
    environment_fingerprint,
    load_modules,
    local_documents,
    scan_modules,
    split_of,
)
from maskwright.corpus.local_docs import docstrings as docstrings_module
from maskwright.corpus.local_docs import scan as scan_module
from maskwright.corpus.local_docs.environment import find_modules, find_readmes


@pytest.fixture
def environment(tmp_path):
    return make_environment(tmp_path)


def test_modules_are_found_through_their_records(environment):
    found = [(module.package, module.name) for module in find_modules(*environment)]
    assert found == [
        ("alpha-kit", "alpha"),
        ("alpha-kit", "alpha.broken"),
        ("alpha-kit", "alpha.core"),
        ("alpha-kit", "alpha.silent"),
        ("beta", "beta"),
        ("stdlib", "json.decoder"),
        ("stdlib", "pydoc_data.topics"),
    ]


def test_readmes_lose_their_badges(environment):
    assert find_readmes(environment[0]) == [("alpha-kit", "# Alpha\n\nAlpha does things to words.")]


def test_fingerprint_follows_packages_and_versions(environment, tmp_path):
    sites, _ = environment
    before = environment_fingerprint(sites)
    assert before == environment_fingerprint(sites)
    (tmp_path / "site" / "maskwright-0.1.dist-info" / "METADATA").write_text("Name: maskwright\nVersion: 9\n")
    assert environment_fingerprint(sites) == before
    install(tmp_path / "site", "gamma", "1.0", {})
    assert environment_fingerprint(sites) != before


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_scan_gives_the_same_for_any_number_of_workers(environment, num_workers):
    modules = scan_modules(*environment, num_workers=num_workers)
    assert modules == [
        DocModule("alpha-kit", "alpha", (("", "Alpha is a kit."),)),
        DocModule("alpha-kit", "alpha.broken", None),
        DocModule("alpha-kit", "alpha.core", (("", "The core."), ("f", "Does f."))),
        DocModule("beta", "beta", (("", "Beta."), ("f", "Does f."))),
        DocModule("stdlib", "json.decoder", (("", "Decodes JSON."),)),
        DocModule("stdlib", "pydoc_data.topics/for", (("", "The for statement"),)),
        DocModule("stdlib", "pydoc_data.topics/if", (("", "The if statement"),)),
        DocModule("alpha-kit", "readme/alpha-kit", (("", "# Alpha\n\nAlpha does things to words."),)),
    ]


def test_order_holds_over_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "_CHUNK", 3)
    files = {f"big/m{number:03d}.py": f'"""Text {number}."""' for number in range(40)}
    install(tmp_path / "site", "big", "1", files)
    (tmp_path / "stdlib").mkdir()
    modules = scan_modules([str(tmp_path / "site")], str(tmp_path / "stdlib"), num_workers=2)
    assert [module.pieces for module in modules] == [((("", f"Text {number}."),)) for number in range(40)]


@pytest.mark.fault
def test_a_helper_that_dies_is_reported(environment, tmp_path, monkeypatch):
    script = tmp_path / "dies.py"
    script.write_text("import sys; sys.stdin.readline(); sys.exit(7)")
    monkeypatch.setattr(docstrings_module, "__file__", str(script))
    with pytest.raises(
        MaskwrightError, match=r"reads docstrings died \(exit status 7\) on one of .*run the same"
    ):
        scan_modules(*environment, num_workers=1)


def test_a_scan_can_be_left_in_the_middle(environment):
    paths = find_modules(*environment) * 200
    results = scan_module._extract_all(paths, 2)
    assert next(results) == (("", "Alpha is a kit."),)
    results.close()


def test_modules_are_kept_in_the_cache(environment, tmp_path, monkeypatch):
    scans = []

    def scan():
        scans.append(1)
        return scan_modules(*environment, num_workers=0)

    monkeypatch.setattr(scan_module, "scan_modules", scan)
    cache = tmp_path / "cache"
    first = load_modules(cache)
    assert load_modules(cache) == first
    assert len(scans) == 1
    assert [path.name for path in cache.iterdir()] == [f"local-docs-{environment_fingerprint()}.jsonl.zst"]
    assert load_modules() == first
    assert len(scans) == 2


def module_in(split, taken=()):
    """A module name that falls into a split."""
    return next(name for n in range(10_000) if split_of(name := f"p.m{n}") == split and name not in taken)


def test_splits_have_their_shares():
    names = [split_of(f"package.module{number}") for number in range(20_000)]
    assert abs(names.count("train") / 20_000 - 0.80) < 0.01
    assert abs(names.count("validation") / 20_000 - 0.08) < 0.01
    assert abs(names.count("test") / 20_000 - 0.12) < 0.01


def test_splits_never_change():
    splits = {
        "_ast": "train",
        "torch.nn.modules.linear": "train",
        "_decimal": "validation",
        "__future__": "test",
    }
    assert {name: split_of(name) for name in splits} == splits


def test_a_module_is_one_document():
    name = module_in("train")
    modules = [DocModule("p", name, (("", "One."), ("f", "Two."))), DocModule("p", "broken", None)]
    (document,) = local_documents(modules, SPLITS)
    assert document.text == "One.\n\nTwo."
    assert document.id == f"local-docs:{name}"
    assert document.meta == {"package": "p", "module": name, "split": "train"}


def test_a_docstring_is_kept_once_and_in_the_test_split_first():
    names = [module_in("train"), module_in("validation"), module_in("test")]
    modules = [DocModule("p", name, (("", "Shared."), ("f", f"Own {name}."))) for name in names]
    texts = {document.meta["split"]: document.text for document in local_documents(modules, SPLITS)}
    assert texts["test"].startswith("Shared.")
    assert "Shared." not in texts["train"] + texts["validation"]
    train = list(local_documents(modules, ["train"]))
    assert [document.text for document in train] == [texts["train"]]


def test_a_module_of_repeats_makes_no_document():
    names = [module_in("train"), module_in("train", taken=[module_in("train")])]
    modules = [DocModule("p", name, (("", "Same."),)) for name in names]
    assert len(list(local_documents(modules, SPLITS))) == 1


def test_the_reader_counts_what_cannot_be_parsed(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "scan_modules", lambda: scan_modules(*environment, num_workers=0))
    documents, audit = read("local-docs", name="", splits=SPLITS)
    assert audit.drops == {"unparsable_module": 1}
    assert audit.as_dict()["drop_samples"]["unparsable_module"] == ["alpha.broken"]
    assert {document.source for document in documents} == {"local-docs"}
    assert len({document.id for document in documents}) == len(documents)
    assert not any(str(tmp_path) in document.id for document in documents)


@pytest.mark.slow
def test_this_environment(tmp_path):
    modules = load_modules(tmp_path)
    assert load_modules(tmp_path) == modules
    documents = list(local_documents(modules, SPLITS))
    assert len(documents) > 500
    assert len({document.id for document in documents}) == len(documents)
    assert not any(document.meta["package"] == "maskwright" for document in documents)
