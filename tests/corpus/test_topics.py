from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.corpus.local_docs import SPLITS, DocModule, split_of, topic_examples
from maskwright.corpus.local_docs.topic_text import common_lines, name_pattern, squashed, strip_text

NOTHING = frozenset()
NO_NAME = re.compile("(?!)")


def package(name, modules=60, docstrings=4, text="{name} of {word}: item {number} of {module}."):
    return [
        DocModule(
            name,
            f"{name}.m{m}",
            tuple(
                (f"f{n}", text.format(name=name, word=name[::-1], number=n, module=f"m{m}"))
                for n in range(docstrings)
            ),
        )
        for m in range(modules)
    ]


def task(modules, **settings):
    return topic_examples(modules, **{"min_characters": 10, **settings})


def test_rows_have_text_label_and_id_in_every_split():
    rows = task(package("alpha") + package("beta"))
    assert set(rows) == set(SPLITS)
    for split in SPLITS:
        assert {row["label"] for row in rows[split]} == {"alpha", "beta"}
        for row in rows[split]:
            assert set(row) == {"text", "label", "id"}
            assert split_of(row["id"].split("#")[0]) == split
            assert row["label"] not in row["text"]


def test_labels_are_balanced_by_a_limit():
    limits = {"train": 7, "validation": 3, "test": 2}
    rows = task(package("alpha", docstrings=9) + package("beta"), per_label=limits)
    for split, limit in limits.items():
        assert Counter(row["label"] for row in rows[split]) == {"alpha": limit, "beta": limit}


def test_the_largest_packages_are_the_labels_and_names_break_ties():
    modules = package("delta") + package("beta") + package("gamma", docstrings=9) + package("alpha")
    rows = task(modules, num_labels=2)
    assert {row["label"] for row in rows["train"]} == {"gamma", "alpha"}


def test_a_package_that_is_small_in_one_split_is_no_label():
    few = [module for module in package("few", docstrings=40) if split_of(module.name) != "test"]
    rows = task(package("alpha") + package("beta") + few)
    assert {row["label"] for row in rows["train"]} == {"alpha", "beta"}


def test_the_choice_does_not_depend_on_order_but_on_the_seed():
    modules = package("alpha") + package("beta")
    limits = {"train": 20}
    rows = task(modules, per_label=limits)
    assert rows == task(modules, per_label=limits)
    assert rows == task(list(reversed(modules)), per_label=limits)
    assert rows != task(modules, per_label=limits, seed=1)


def test_readmes_language_topics_and_broken_modules_are_left_out():
    extra = [
        DocModule("alpha", "readme/alpha", (("", "A long README text of alpha, the package of packages."),)),
        DocModule("alpha", "alpha.broken", None),
    ]
    modules = package("alpha") + package("beta")
    assert task(modules + extra) == task(modules)


def test_a_text_in_two_packages_or_two_splits_is_dropped():
    shared = DocModule("alpha", "alpha.m0", (("x", "This very text is in two packages."),))
    copies = [shared, DocModule("beta", "beta.m0", (("x", "this very TEXT  is in\ntwo packages"),))]
    for split in ("train", "test"):
        name = next(f"alpha.n{n}" for n in range(1000) if split_of(f"alpha.n{n}") == split)
        copies.append(DocModule("alpha", name, (("x", "This text crosses the splits."),)))
    twice = [
        DocModule("alpha", "alpha.twice", (("x", "Repeated in one place."), ("y", "Repeated in one place!")))
    ]
    modules = package("alpha") + package("beta") + copies + twice
    limits = {"train": 10_000, "validation": 10_000, "test": 10_000}
    texts = Counter(row["text"] for rows in task(modules, per_label=limits).values() for row in rows)
    assert not any("two packages" in text or "crosses" in text for text in texts)
    assert sum(count for text, count in texts.items() if text.startswith("Repeated")) == 1
    assert max(Counter(map(squashed, texts)).values()) == 1


def test_short_texts_are_left_out_and_long_ones_cut():
    long = "\n".join(f"line {number} of module {{module}} item {{number}}" for number in range(100))
    rows = task(
        package("alpha", text=long) + package("beta", text="{number} {module}" + " x" * 30),
        max_characters=300,
    )
    lengths = [len(row["text"]) for row in rows["train"] if row["label"] == "alpha"]
    assert max(lengths) <= 300
    assert min(lengths) > 200
    with pytest.raises(
        DataError, match=r"give 0 topics with 10 docstrings in every split, expected at least 2"
    ):
        task(
            package("alpha", text="short {number}") + package("beta", text="short {number}"),
            min_characters=80,
        )


def test_one_package_is_no_task():
    with pytest.raises(DataError, match=r"give 1 topics .*; install more packages"):
        task(package("alpha"))


@pytest.mark.parametrize(
    ("name", "imports", "text", "expected"),
    [
        ("numpy", ["numpy"], "Use np.array or numpy.linalg.norm, NumPy!", "Use array or linalg.norm, !"),
        ("scikit-learn", ["sklearn"], "In scikit-learn, sklearn_check and Scikit Learn.", "In , _check and"),
        ("torch", ["torch", "torchgen"], "A PyTorch tensor; TorchScript", "A tensor; Script"),
        ("click", ["click"], "Clicking on a click", "ing on a"),
        ("rich", ["rich"], "An enriched rich.text", "An enriched text"),
        ("stdlib", ["os", "json"], "In Python, os and json stay", "In , os and json stay"),
        ("pytest", ["_pytest", "pytest"], "from _pytest.mark", "from _ mark"),
    ],
)
def test_names_are_removed(name, imports, text, expected):
    assert strip_text(text, NOTHING, name_pattern(name, imports), 1000) == expected


def test_examples_rulings_directives_and_boilerplate_are_removed():
    text = (
        "Does it.\n\nParameters\n----------\nx : int\n\n.. versionadded:: 1.2\n\n"
        ">>> f(1)\n...\n... 2\n\n\n\nNotes  are   kept\n=====\n:toctree:\n"
    )
    assert (
        strip_text(text, frozenset({"parameters"}), NO_NAME, 1000) == "Does it.\n\nx : int\n\nNotes are kept"
    )


def test_common_lines_are_those_of_many_texts():
    texts = [f"text {number}\n  Parameters\n" for number in range(100)] + ["rare\nrare"] * 4 + ["once"]
    assert common_lines(texts) == {"parameters"}
    assert common_lines(["a", "a", "a", "a"]) == frozenset()


@given(st.text(), st.integers(1, 50))
def test_stripping_keeps_within_the_limit(text, limit):
    assert len(strip_text(text, NOTHING, NO_NAME, limit)) <= limit


@given(st.text())
def test_squashing_ignores_case_and_layout(text):
    assert squashed(squashed(text)) == squashed(text)
    assert squashed(f" {text}\n-") == squashed(text)
