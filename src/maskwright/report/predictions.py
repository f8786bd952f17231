"""The section with sample predictions: sentences with a hidden token, and what the model says."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import bars
from .inputs import Inputs
from .markup import Html, Section, join, missing, note, tag
from .scale import percent
from .values import Object, items, mapping, number

__all__ = ["predictions_section"]

MASK = "<mask>"
MAX_SAMPLES = 12
TOP = 5
CONTEXT_CHARACTERS = 300
_WHITE_SPACE = {"\n": "⏎", "\r": "⏎", "\t": "⇥"}


def predictions_section(inputs: Inputs) -> Section:
    """What the model puts into gaps that it has not seen filled."""
    samples = [mapping(sample) for sample in items(inputs.summary.get("samples"))[:MAX_SAMPLES]]
    if not samples:
        reason = inputs.summary_problem or "summary.json has no samples"
        return Section("predictions", "Predictions", missing(reason, "maskwright pretrain"))
    # One scale for all cards: a sure guess is to look surer than a vague one.
    surest = max((share for sample in samples for _, share in _candidates(sample)), default=1.0)
    cards = [_card(sample, surest) for sample in samples]
    ranks = [_rank(sample) for sample in samples]
    first, near = sum(rank == 0 for rank in ranks), sum(rank is not None for rank in ranks)
    words = note(
        f"Sentences from the validation split with one token hidden. The right token comes first in "
        f"{first} of {len(samples)} and is among the first {TOP} in {near}."
    )
    return Section("predictions", "Predictions", join([words, tag("div", *cards, class_="cards")]))


def _candidates(sample: Object) -> list[tuple[str, float]]:
    """Tokens and their probabilities, most probable first."""
    found = []
    for entry in map(mapping, items(sample.get("predictions"))):
        probability = number(entry.get("probability"))
        if probability is not None and "token" in entry:
            found.append((str(entry["token"]), max(0.0, probability)))
    return sorted(found, key=lambda pair: -pair[1])[:TOP]


def _rank(sample: Object) -> int | None:
    """Where the right answer stands among the candidates, or None where it does not."""
    tokens = [token for token, _ in _candidates(sample)]
    answer = str(sample.get("answer", ""))
    if answer in tokens:
        return tokens.index(answer)
    # Some tokenizers keep the space before a word in the token, and some texts leave it out.
    bare = [token.strip() for token in tokens]
    return bare.index(answer.strip()) if answer.strip() and answer.strip() in bare else None


def _card(sample: Object, full: float) -> Html:
    candidates, rank = _candidates(sample), _rank(sample)
    rows = [(_visible(token), probability) for token, probability in candidates]
    chart = bars(rows, caption="Predictions", full=full, write=percent, colour="quiet", chosen=rank)
    answer = _visible(str(sample.get("answer", "")))
    where = f"place {rank + 1}" if rank is not None else f"not among the first {TOP}"
    verdict = tag(
        "p", "Hidden: ", tag("b", answer, dir="auto"), tag("span", where, class_="where"), class_="verdict"
    )
    words = _with_chips(str(sample.get("position_text") or sample.get("text", "")))
    return tag("article", tag("p", *words, class_="gap", dir="auto"), chart, verdict, class_="card")


def _visible(token: str) -> str:
    """A token as it reads; white space and emptiness are named."""
    bare = token.strip()
    return bare or "".join(_WHITE_SPACE.get(character, "␣") for character in token) or "(nothing)"


def _with_chips(text: str) -> Sequence[object]:
    """Cut a text around its first mask and put chips for the masks."""
    before, mask, after = text.partition(MASK)
    if not mask:
        return [text[: 2 * CONTEXT_CHARACTERS]]
    if len(before) > CONTEXT_CHARACTERS:
        before = "… " + before[-CONTEXT_CHARACTERS:]
    if len(after) > CONTEXT_CHARACTERS:
        after = after[:CONTEXT_CHARACTERS] + " …"
    parts: list[object] = [before]
    for piece in after.split(MASK):
        parts += [tag("span", "mask", class_="chip"), piece]
    return parts
