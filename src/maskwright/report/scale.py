"""Numbers on an axis: scales, round ticks, thinning, smoothing, and how numbers are written.

Pure functions, linear in the number of points.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

from .values import Point

__all__ = [
    "Scale",
    "bytes_text",
    "compact",
    "decimals_for",
    "duration",
    "fit_scale",
    "grouped",
    "percent",
    "plain_ticks",
    "percent_ticks",
    "segments",
    "share_text",
    "significant",
    "smooth",
    "thin",
]

Formatter = Callable[[Sequence[float]], list[str]]
NBSP = "\N{NO-BREAK SPACE}"
MAX_POINTS = 800


@dataclass(frozen=True)
class Scale:
    """A stretch of numbers laid on [0, 1].

    Args:
        low: value at 0.
        high: value at 1; larger than `low`.
        log: lay out logarithms; both ends are then positive.
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high end; values outside are cut."""
        if self.log:
            start, end = math.log(self.low), math.log(self.high)
            share = (math.log(max(value, self.low)) - start) / (end - start)
        else:
            # Halves keep the span finite even between the largest floats of either sign.
            share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(1.0, max(0.0, share))

    def ticks(self, count: int) -> list[float]:
        """About `count` round values inside the scale, ascending."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _round_step(self.low, self.high, count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def fit_scale(values: Sequence[float], *, zero: bool = False, log: bool = False, ticks: int = 5) -> Scale:
    """A scale with round ends that holds all values.

    Args:
        values: finite numbers, perhaps none.
        zero: begin at zero if no value is below it.
        log: lay out logarithms if all values are positive and far apart; otherwise stay linear.
        ticks: about how many ticks are wanted; the ends are rounded to their step.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log and low > 0 and high / 3 > low:
        return Scale(low / 1.1, min(high * 1.1, sys.float_info.max), log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(high) * 0.1 or 0.5
        low, high = low - margin, high + margin
    step = _round_step(low, high, ticks)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Scale(low, high)


def _round_step(low: float, high: float, count: int) -> float:
    """The step among 1, 2 and 5 times a power of ten that cuts a stretch in about `count` parts."""
    raw = max((high / 2 - low / 2) / max(1, count) * 2, 1e-300)
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= raw * 0.999), 10 * power)


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= count + 2:
            return found
    return found[:: math.ceil(len(found) / count)]


def segments(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    """The unbroken stretches of a series: it is cut wherever a value is None."""
    run: list[tuple[float, float]] = []
    for point in points:
        if _is_known(point):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _is_known(point: Point) -> TypeGuard[tuple[float, float]]:
    return point[1] is not None


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Keep at most about `limit` points so that a drawn line looks the same.

    The points are cut into equal runs; of each the lowest and the highest stay, in order, so no
    spike is lost. The first and the last point always stay.
    """
    if len(points) <= limit:
        return list(points)
    runs = max(1, limit // 2 - 1)
    kept = {0, len(points) - 1}
    for number in range(runs):
        inside = range(number * len(points) // runs, (number + 1) * len(points) // runs)
        kept.add(min(inside, key=lambda index: points[index][1]))
        kept.add(max(inside, key=lambda index: points[index][1]))
    return [points[index] for index in sorted(kept)]


def smooth(points: Sequence[Point], share: float = 0.025) -> list[Point]:
    """Smooth by a straight line fitted around each point, so that the curve does not lag.

    Inside the series this is the centred running mean; near the ends the fitted slope keeps the
    one-sided window from bending the curve. The result stays within the range of the series.

    Args:
        points: a series; unknown values cut it, as in `segments`.
        share: half the width of the window, as a share of the stretch.
    """
    result: list[Point] = []
    for run in segments(points):
        heights = _fit_locally([y for _, y in run], max(1, round(len(run) * share)))
        result += zip((x for x, _ in run), heights, strict=True)
        result.append((run[-1][0], None))
    return result


def _fit_locally(heights: Sequence[float], half: int) -> list[float]:
    """The value at each index of the least-squares line through the `half` neighbours either side."""
    sums, moments = [0.0], [0.0]
    for index, height in enumerate(heights):
        sums.append(sums[-1] + height)
        moments.append(moments[-1] + index * height)
    fitted = []
    for index in range(len(heights)):
        low, high = max(0, index - half), min(len(heights), index + half + 1)
        count, centre = high - low, (low + high - 1) / 2
        mean = (sums[high] - sums[low]) / count
        spread = count * (count * count - 1) / 12
        slope = (moments[high] - moments[low] - centre * count * mean) / spread if spread else 0.0
        fitted.append(mean + slope * (index - centre))
    lowest, highest = min(heights), max(heights)
    return [min(highest, max(lowest, height)) for height in fitted]


def decimals_for(step: float) -> int:
    """How many decimals tell numbers apart that differ by `step`."""
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without needless zeros or a long tail."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def grouped(value: float) -> str:
    """A whole number with thousands set apart: `12,345`."""
    return f"{value:,.0f}"


def compact(value: float) -> str:
    """A count in few characters: `934`, `12.3 k`, `4.56 M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if unit == "k" else size
            return f"{significant(value / divisor)}{NBSP}{unit}"
    return grouped(value) if value == round(value) or abs(value) >= 1e3 else significant(value)


def percent(share: float, decimals: int = 1) -> str:
    """A share as per cent: `12.3 %`."""
    return f"{100 * share:.{decimals}f}{NBSP}%"


def share_text(share: float) -> str:
    """A share as per cent, where a little is not the same as nothing: `< 0.1 %`."""
    return f"<{NBSP}0.1{NBSP}%" if 0 < share < 0.0005 else percent(share)


def bytes_text(value: float) -> str:
    """A number of bytes in binary units: `1.50 GiB`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{significant(value / 1024**power)}{NBSP}{unit}"
    return f"{grouped(value)}{NBSP}B"


def duration(seconds: float) -> str:
    """A time in its two largest units: `3 min 12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{significant(seconds)}{NBSP}s"
    sizes = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(index for index, (size, _) in enumerate(sizes) if whole >= size)
    parts = []
    for size, unit in sizes[first : first + 2]:
        count, whole = divmod(whole, size)
        parts.append(f"{count}{NBSP}{unit}")
    return " ".join(parts)


def plain_ticks(ticks: Sequence[float]) -> list[str]:
    """Write tick values alike: enough decimals to tell them apart, `k` and `M` for large ones."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    gap = min((b - a for a, b in pairwise(ticks)), default=largest)
    if largest and largest < 0.01:
        single = all(math.isclose(float(f"{tick:.0e}"), tick) for tick in ticks)
        return [significant(tick, 1 if single else 2) for tick in ticks]
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= (1e4 if unit == "k" else size):
            decimals = decimals_for(gap / size)
            return [f"{tick / size:.{decimals}f}{unit}" if tick else "0" for tick in ticks]
    return [f"{tick:,.{decimals_for(gap)}f}" for tick in ticks]


def percent_ticks(ticks: Sequence[float]) -> list[str]:
    """Write tick values, which are shares, as per cent."""
    gap = min((b - a for a, b in pairwise(ticks)), default=1.0)
    return [f"{100 * tick:.{decimals_for(100 * gap)}f}{NBSP}%" for tick in ticks]
