"""Rule `mask_ip`: public IP addresses give way to a placeholder."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .stable import until_stable

__all__ = ["MaskIp", "mask_ip_step"]

_LIKELY = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_ADDRESS = re.compile(r"(?<![0-9A-Za-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])")


class MaskIp(Config):
    """Settings of the rule `mask_ip`."""

    replacement: str = Field(default="192.0.2.1", description="text to put where a public IPv4 address was")


def mask_ip_step(settings: MaskIp) -> Step:
    """A step that replaces public IPv4 addresses and leaves private and reserved ones alone.

    Source: Penedo et al. 2024, section 3.7 (public IP addresses are anonymised), with a
    placeholder that RFC 5737 reserves for documentation. Four numbers of a version or of a section
    cannot be told from an address and are replaced as well; IPv6 addresses are not looked for.

    Args:
        settings: the replacement.

    Returns:
        A step. It changes the text and never drops.
    """

    def mask(match: re.Match[str]) -> str:
        return settings.replacement if _is_public(match.group()) else match.group()

    def step(document: Document, /) -> Document | Drop:
        if not _LIKELY.search(document.text):
            return document
        text = until_stable(lambda text: _ADDRESS.sub(mask, text), document.text)
        return document if text == document.text else replace(document, text=text)

    return step


def _is_public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:  # a number above 255, or with a leading zero
        return False
