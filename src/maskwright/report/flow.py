"""A flow chart: what came from where, and where it went, as ribbons whose height is the amount."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Html, tag
from .svg import SIZE, draw, short

__all__ = ["Node", "fit_heights", "flow_chart"]

GAP = 20.0
NODE_WIDTH = 12
# A name and an amount below it must fit beside every node, however little flows there.
PIXELS_A_LABEL = 46
PIXELS_A_NODE = 66
LEAST_PIXELS = 250


@dataclass(frozen=True)
class Node:
    """One end of the flow.

    Args:
        name: what it is called.
        beside: its amount in words.
        colour: one of `svg.COLOURS`, or `quiet`; ribbons take the colour of where they go.
    """

    name: str
    beside: Html
    colour: str = "quiet"


def flow_chart(
    title: str,
    sources: Sequence[Node],
    targets: Sequence[Node],
    amounts: Sequence[Sequence[float]],
    write: Callable[[float], str],
) -> Html:
    """Draw how much went from each source to each target.

    Args:
        title: what a screen reader says.
        sources: the left ends, top first.
        targets: the right ends, top first.
        amounts: a row for each source with an amount (not negative) for each target.
        write: writes an amount for those who point at a ribbon.

    Returns:
        The chart; empty where nothing flows.
    """
    total = sum(map(sum, amounts))
    if total <= 0:
        return Html("")
    height = max(LEAST_PIXELS, PIXELS_A_NODE * max(len(sources), len(targets)))
    slot = SIZE * PIXELS_A_LABEL / height
    shares = [sum(row) / total for row in amounts], [sum(row) / total for row in zip(*amounts, strict=True)]
    # One scale for both sides, so that a ribbon is as broad where it ends as where it starts.
    scale = min(fit_heights(side, slot) for side in shares)
    left, right = (_stack(side, scale, slot) for side in shares)
    starts, ends = [top for top, _ in left], [top for top, _ in right]
    shapes = []
    for row, source in enumerate(sources):
        for column, target in enumerate(targets):
            breadth = amounts[row][column] / total * scale
            if breadth > 0:
                words = tag("title", f"{source.name} → {target.name}: {write(amounts[row][column])}")
                shapes.append(_ribbon((starts[row], ends[column]), breadth, target.colour, words))
                starts[row] += breadth
                ends[column] += breadth
    shapes += [_box(0, place, node) for place, node in zip(left, sources, strict=True)]
    shapes += [_box(SIZE - NODE_WIDTH, place, node) for place, node in zip(right, targets, strict=True)]
    return tag(
        "figure",
        _labels(sources, left, "from"),
        tag("div", draw(title, shapes), class_="plot", style=f"height:{height}px"),
        _labels(targets, right, "to"),
        class_="flow",
    )


def fit_heights(shares: Sequence[float], slot: float) -> float:
    """How many drawing units the whole may have, so that every node still has room for its label.

    Args:
        shares: share of the whole that each node has.
        slot: least height of a node with its label, in drawing units.

    Returns:
        The largest scale at which all nodes fit; at least one unit.
    """
    room = SIZE - GAP * (len(shares) - 1)
    low, high = 1.0, float(SIZE)
    for _ in range(40):
        middle = (low + high) / 2
        fits = sum(max(slot, share * middle) for share in shares) <= room
        low, high = (middle, high) if fits else (low, middle)
    return low


def _stack(shares: Sequence[float], scale: float, slot: float) -> list[tuple[float, float]]:
    """Top and height of each node, in drawing units; what is left over goes between them."""
    heights = [share * scale for share in shares]
    used = sum(max(slot, height) for height in heights)
    gap = (SIZE - used) / max(1, len(shares) - 1)
    top, places = 0.0, []
    for height in heights:
        space = max(slot, height)
        places.append((top + (space - height) / 2, height))
        top += space + gap
    return places


def _ribbon(tops: tuple[float, float], breadth: float, colour: str, words: Html) -> Html:
    near, far, middle = NODE_WIDTH, SIZE - NODE_WIDTH, SIZE // 2
    (start, end), (low, deep) = map(short, tops), map(short, (tops[0] + breadth, tops[1] + breadth))
    path = (
        f"M{near} {start}C{middle} {start} {middle} {end} {far} {end}"
        f"V{deep}C{middle} {deep} {middle} {low} {near} {low}Z"
    )
    return tag("path", words, d=path, class_=f"ribbon ink-{colour}")


def _box(x: int, place: tuple[float, float], node: Node) -> Html:
    box = {"x": x, "y": short(place[0]), "width": NODE_WIDTH, "height": short(max(2.0, place[1]))}
    return tag("rect", class_=f"end ink-{node.colour}", **box)


def _labels(nodes: Sequence[Node], places: Sequence[tuple[float, float]], class_: str) -> Html:
    shown = [
        tag(
            "li",
            tag("span", node.name, dir="auto", title=node.name),
            node.beside,
            style=f"top:{100 * (top + height / 2) / SIZE:.2f}%",
        )
        for node, (top, height) in zip(nodes, places, strict=True)
    ]
    return tag("ul", *shown, class_=f"ends {class_}")
