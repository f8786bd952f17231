"""Make the topic task honest: take from a docstring what names its package or fills its pages.

Removed are examples (`>>>`), directives, rulings, lines that recur all over a package, and every
form of the package's own name. What remains is what the docstring says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["common_lines", "name_pattern", "squashed", "strip_text"]

# Other names by which a package is known in its own documentation.
_ALIASES = {
    "accelerate": ("hugging face", "huggingface", "🤗"),
    "awkward": ("ak",),
    "beautifulsoup4": ("bs4", "beautiful soup"),
    "datasets": ("hugging face", "huggingface", "🤗"),
    "huggingface-hub": ("hugging face", "huggingface", "hf", "🤗"),
    "matplotlib": ("plt", "mpl"),
    "narwhals": ("nw",),
    "networkx": ("nx",),
    "numpy": ("np",),
    "pandas": ("pd",),
    "pillow": ("pil",),
    "polars": ("pl",),
    "pyarrow": ("arrow", "pa"),
    "scikit-learn": ("sklearn",),
    "scipy": ("sp",),
    "setuptools": ("distutils", "pkg_resources"),
    "stdlib": ("python", "cpython", "pythonic"),
    "sympy": ("sym",),
    "tensorboard": ("tensorflow", "tf"),
    "tensorflow": ("tf",),
    "torch": ("pytorch",),
    "transformers": ("hugging face", "huggingface", "🤗", "transformer"),
}
_LONG_NAME = 5
_COMMON_SHARE = 0.02
_COMMON_COUNT = 5
_SKIPPED_LINE = re.compile(r"\s*(>>>|\.\.\. |\.\.\.$|\.\. |:[a-z]+:\s*$|([-=~^*_`#])\2{2,}\s*$)")
_SPACES = re.compile(r"[ \t]{2,}")


def common_lines(texts: Iterable[str]) -> frozenset[str]:
    """Lines that occur in so many texts of a package that they tell the package by its manner.

    Args:
        texts: different docstrings of one package.

    Returns:
        Lines, without surrounding space and in lower case, that occur in at least five of the texts
        and in at least one of fifty.
    """
    count, lines = 0, Counter[str]()
    for text in texts:
        count += 1
        lines.update({line.strip().lower() for line in text.splitlines()})
    least = max(_COMMON_COUNT, _COMMON_SHARE * count)
    return frozenset(line for line, times in lines.items() if line and times >= least)


def name_pattern(package: str, import_names: Iterable[str]) -> re.Pattern[str]:
    """A pattern for every form of a package's name, with the dots around it.

    Args:
        package: normalised name of the distribution.
        import_names: top-level modules it installs.

    Returns:
        A pattern that ignores case. Names of five letters or more also match inside longer words;
        shorter ones only where no letter touches them.
    """
    names = (
        {package, *import_names, *_ALIASES.get(package, ())} if package != "stdlib" else {*_ALIASES[package]}
    )
    names = {name.strip("_").lower() for name in names} - {""}
    forms = {form for name in names for form in (name, name.replace("-", "_"), re.sub("[-_]", " ", name))}
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    choices = [
        re.escape(form) if len(form) >= _LONG_NAME else rf"(?<![a-z]){re.escape(form)}(?![a-z])"
        for form in ordered
    ]
    return re.compile(rf"\.?(?:{'|'.join(choices)})\.?", re.IGNORECASE)


def strip_text(text: str, boilerplate: frozenset[str], names: re.Pattern[str], max_characters: int) -> str:
    """Take examples, boilerplate and names out of a docstring, and cut it at a line end.

    Args:
        text: the docstring, without indentation.
        boilerplate: from `common_lines`.
        names: from `name_pattern`.
        max_characters: longest result, in characters.

    Returns:
        The rest; perhaps empty.
    """
    kept: list[str] = []
    length = 0
    for line in text.splitlines():
        if _SKIPPED_LINE.match(line) or line.strip().lower() in boilerplate:
            continue
        line = _SPACES.sub(" ", names.sub(" ", line)).strip()
        if not line and (not kept or not kept[-1]):
            continue
        length += len(line) + 1
        if length > max_characters + 1:
            break
        kept.append(line)
    return "\n".join(kept).strip()


def squashed(text: str) -> str:
    """Letters and digits of a text in lower case: equal for texts that differ in layout alone."""
    return "".join(filter(str.isalnum, text.lower()))
