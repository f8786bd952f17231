"""A labelled task that every Python environment holds: which package is this docstring from?

Labels are the packages with the most usable docstrings. A docstring follows its module into a split
(`split_of`), so no module is on two sides, and a text that occurs in two packages or two splits is
left out. Names of the package and what recurs all over it are taken out of the text first
(`topic_text`). Which docstrings are taken, when there are more than asked for, is decided by a keyed
hash of their id.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...core.errors import DataError
from ...core.keyed import derive_key
from ..dedup.exact import text_digest
from .documents import SPLITS, split_of
from .scan import DocModule
from .topic_text import common_lines, name_pattern, squashed, strip_text

__all__ = ["topic_examples"]

Example = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    label: str
    id: str
    split: str


def topic_examples(
    modules: Sequence[DocModule],
    *,
    num_labels: int = 20,
    per_label: Mapping[str, int] | None = None,
    min_characters: int = 80,
    max_characters: int = 2000,
    min_per_split: int = 10,
    seed: int = 0,
) -> dict[str, list[Example]]:
    """Make the topic classification task of an environment.

    Args:
        modules: from `load_modules`.
        num_labels: how many packages to tell apart; fewer if the environment has fewer.
        per_label: most examples a label gets in each split; by default 200 in train and 50 each in
            validation and test.
        min_characters: shortest text, in characters.
        max_characters: longest text; longer ones are cut at a line end.
        min_per_split: a package with fewer usable docstrings in any split is no topic.
        seed: another seed chooses other docstrings and another order.

    Returns:
        For `train`, `validation` and `test` a list of rows with `text`, `label` and `id`, in a fixed
        shuffled order. Every label has at least `min_per_split` examples in every split, unless
        `per_label` says fewer.

    Raises:
        DataError: fewer than two packages have enough docstrings.
    """
    limits = {"train": 200, "validation": 50, "test": 50, **(per_label or {})}
    candidates = _without_repeats(list(_candidates(modules, min_characters, max_characters)))
    labels = _largest_labels(candidates, num_labels, min_per_split)
    if len(labels) < 2:
        raise DataError(
            f"the installed packages give {len(labels)} topics with {min_per_split} docstrings in every "
            "split, expected at least 2 topics; install more packages"
        )
    rows: dict[str, list[Example]] = {split: [] for split in SPLITS}
    taken: Counter[tuple[str, str]] = Counter()
    for candidate in sorted(candidates, key=lambda item: derive_key(seed, "topic", item.id)):
        place = (candidate.split, candidate.label)
        if candidate.label in labels and taken[place] < limits[candidate.split]:
            taken[place] += 1
            row = {"text": candidate.text, "label": candidate.label, "id": candidate.id}
            rows[candidate.split].append(row)
    return rows


def _candidates(
    modules: Sequence[DocModule], min_characters: int, max_characters: int
) -> Iterator[_Candidate]:
    by_package: dict[str, list[DocModule]] = defaultdict(list)
    for module in modules:
        if module.pieces and "/" not in module.name:  # READMEs and language topics name themselves
            by_package[module.package].append(module)
    for package, members in sorted(by_package.items()):
        texts = {text for module in members for _, text in module.pieces or ()}
        boilerplate = common_lines(texts)
        names = name_pattern(package, {module.name.split(".")[0] for module in members})
        for module in members:
            split = split_of(module.name)
            for number, (_, text) in enumerate(module.pieces or ()):
                text = strip_text(text, boilerplate, names, max_characters)
                if len(text) >= min_characters:
                    yield _Candidate(text, package, f"{module.name}#{number}", split)


def _without_repeats(candidates: list[_Candidate]) -> list[_Candidate]:
    """Keep one of equal texts, and none that occur under two labels or in two splits."""
    places: dict[bytes, set[tuple[str, str]]] = defaultdict(set)
    digests = [text_digest(squashed(candidate.text)) for candidate in candidates]
    for digest, candidate in zip(digests, candidates, strict=True):
        places[digest].add((candidate.label, candidate.split))
    kept: dict[bytes, _Candidate] = {}
    for digest, candidate in zip(digests, candidates, strict=True):
        if len(places[digest]) == 1:
            kept.setdefault(digest, candidate)
    return list(kept.values())


def _largest_labels(candidates: list[_Candidate], num_labels: int, min_per_split: int) -> frozenset[str]:
    """The labels with most candidates among those with enough in every split; names break ties."""
    totals = Counter(candidate.label for candidate in candidates)
    places = Counter((candidate.label, candidate.split) for candidate in candidates)
    enough = [label for label in totals if all(places[label, split] >= min_per_split for split in SPLITS)]
    return frozenset(sorted(enough, key=lambda label: (-totals[label], label))[:num_labels])
