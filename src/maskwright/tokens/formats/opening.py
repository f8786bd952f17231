"""From the name of a format to the samples of each source."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..shards import SourceTokens, TokenData
from .borders import Borders
from .config import FormatName
from .doc_sentences import follow_doc_sentences
from .full_sentences import follow_full_sentences
from .index import Follow, SampleIndex, Section, open_index
from .pairs import Extend, Pairs
from .runs import Runs
from .samples import Cut, Order, SourceSamples, TooSmall
from .segment_pair import extend_segment, follow_segment_pair
from .sentence_pair import follow_sentence_pair, keep_sentence
from .windows import open_windows

__all__ = ["SourceOpener", "open_format"]

# The samples of one source in an order.
SourceOpener = Callable[[SourceTokens, Order], SourceSamples | TooSmall]


class _Rule(NamedTuple):
    """One format of sentences: where samples end, what follows at random, and whether documents do."""

    follow: Follow
    extend: Extend | None = None
    crosses_documents: bool = False


_RULES: dict[FormatName, _Rule] = {
    "full-sentences": _Rule(follow_full_sentences, crosses_documents=True),
    "doc-sentences": _Rule(follow_doc_sentences),
    "segment-pair": _Rule(follow_segment_pair, extend_segment),
    "sentence-pair": _Rule(follow_sentence_pair, keep_sentence),
}


def open_format(data: TokenData, cut: Cut) -> SourceOpener:
    """What opens the sources of a split in a format; the index of samples is made if it is missing.

    Args:
        data: the split.
        cut: the format and the length.

    Raises:
        ShardError: the format needs ends of sentences and the data has none, or a shard cannot be read.
    """
    if cut.format.name == "windows":
        return lambda source, order: open_windows(source, cut, order)
    rule = _RULES[cut.format.name]
    index = open_index(data, cut, rule.follow, crosses_documents=rule.crosses_documents)
    borders = Borders(data, cut.longest_unit)
    return lambda source, order: _open_source(index, borders, cut, rule.extend, source, order)


def _open_source(
    index: SampleIndex, borders: Borders, cut: Cut, extend: Extend | None, source: SourceTokens, order: Order
) -> SourceSamples | TooSmall:
    section = index.sections.get(source.name)
    if section is None or not len(section.starts):
        return TooSmall("it has no sentence")
    if extend is None:
        return Runs(section, order)
    if _is_one_document(section, borders):
        return TooSmall("it has a single document, and a random second part must be of another one")
    return Pairs(section, order, borders, cut.room, extend)


def _is_one_document(section: Section, borders: Borders) -> bool:
    first, last = borders.documents(section.starts[[0, -1]])[0].tolist()
    return bool(first == last)
