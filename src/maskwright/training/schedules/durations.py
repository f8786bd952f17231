"""Durations as people write them: `24h`, `1h30m`, `90m`, `3600`."""

from __future__ import annotations

import re

__all__ = ["parse_duration"]

_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = r"(\d+(?:\.\d+)?)([dhms])"
_WHOLE = re.compile(rf"(?:{_PART})+")


def parse_duration(value: object) -> object:
    """Turn a text with units into seconds.

    Args:
        value: such as `24h`, `1d12h`, `90m`, `45s`, or a number of seconds.

    Returns:
        Seconds; what is no text comes back as it is, for the caller to judge.

    Raises:
        ValueError: the text is no duration.
    """
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "").lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"is {value!r}, expected a duration such as 24h, 1h30m, 90m or 3600 (seconds)")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(_PART, text))
