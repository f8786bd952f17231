"""A flow chart: what came from where, and where it went, as ribbons whose height is the amount."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Html, tag
from .svg import SIZE, draw, short

__all__ = ["Node", "flow_chart", "spread"]

GAP = 26.0
NODE_WIDTH = 12
MIN_LABEL_GAP = 0.115
PIXELS_A_NODE = 62


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
    left = _stack([sum(row) / total for row in amounts])
    right = _stack([sum(column) / total for column in zip(*amounts, strict=True)])
    starts, ends = [top for top, _ in left], [top for top, _ in right]
    left_scale, right_scale = _room(len(sources)), _room(len(targets))
    shapes = []
    for row, source in enumerate(sources):
        for column, target in enumerate(targets):
            share = amounts[row][column] / total
            if share > 0:
                heights = share * left_scale, share * right_scale
                words = tag("title", f"{source.name} → {target.name}: {write(amounts[row][column])}")
                shapes.append(_ribbon(starts[row], ends[column], heights, target.colour, words))
                starts[row] += heights[0]
                ends[column] += heights[1]
    shapes += [_box(0, place, node) for place, node in zip(left, sources, strict=True)]
    shapes += [_box(SIZE - NODE_WIDTH, place, node) for place, node in zip(right, targets, strict=True)]
    height = max(240, PIXELS_A_NODE * max(len(sources), len(targets)))
    return tag(
        "figure",
        _labels(sources, left, "from"),
        tag("div", draw(title, shapes), class_="plot", style=f"height:{height}px"),
        _labels(targets, right, "to"),
        class_="flow",
    )


def _room(count: int) -> float:
    """Drawing units that are left for amounts between the gaps."""
    return SIZE - GAP * (count - 1)


def _stack(shares: Sequence[float]) -> list[tuple[float, float]]:
    """Top and height of each node, in drawing units."""
    room, top, places = _room(len(shares)), 0.0, []
    for share in shares:
        places.append((top, share * room))
        top += share * room + GAP
    return places


def _ribbon(start: float, end: float, heights: tuple[float, float], colour: str, words: Html) -> Html:
    near, far, middle = NODE_WIDTH, SIZE - NODE_WIDTH, SIZE // 2
    path = (
        f"M{near} {short(start)}C{middle} {short(start)} {middle} {short(end)} {far} {short(end)}"
        f"V{short(end + heights[1])}"
        f"C{middle} {short(end + heights[1])} {middle} {short(start + heights[0])} "
        f"{near} {short(start + heights[0])}Z"
    )
    return tag("path", words, d=path, class_=f"ribbon ink-{colour}")


def _box(x: int, place: tuple[float, float], node: Node) -> Html:
    box = {"x": x, "y": short(place[0]), "width": NODE_WIDTH, "height": short(max(2.0, place[1]))}
    return tag("rect", class_=f"end ink-{node.colour}", **box)


def _labels(nodes: Sequence[Node], places: Sequence[tuple[float, float]], class_: str) -> Html:
    centres = spread([(top + height / 2) / SIZE for top, height in places], MIN_LABEL_GAP)
    shown = [
        tag(
            "li",
            tag("span", node.name, dir="auto", title=node.name),
            node.beside,
            style=f"top:{100 * centre:.2f}%",
        )
        for node, centre in zip(nodes, centres, strict=True)
    ]
    return tag("ul", *shown, class_=f"ends {class_}")


def spread(centres: Sequence[float], gap: float) -> list[float]:
    """Move labels apart that would cover one another, and keep all of them inside.

    Args:
        centres: where the labels want to be, ascending, as shares of the height.
        gap: smallest distance between two, a share of the height; less where they would not fit.

    Returns:
        Where they are, in the same order.
    """
    if not centres:
        return []
    gap = min(gap, 1 / len(centres))
    low, high = gap / 2, 1 - gap / 2
    placed: list[float] = []
    for centre in centres:
        placed.append(max(centre, low, placed[-1] + gap if placed else low))
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], high)
        high = placed[index] - gap
    return placed
