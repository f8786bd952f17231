"""Settings of the local cache for data that lies on object storage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..core.config import Config

__all__ = ["CacheConfig"]


class CacheConfig(Config):
    """How data on object storage is fetched and kept; without effect for a local folder."""

    folder: str | None = Field(
        None, description="where fetched data is kept; default: maskwright/data in the user's cache folder"
    )
    most_bytes: int = Field(
        200_000_000_000, ge=1, description="most bytes of blocks kept; the least recently used ones go first"
    )
    block_bytes: int = Field(
        1 << 20, ge=4096, multiple_of=4096, description="bytes of a shard that are fetched at once"
    )
    threads: int = Field(16, ge=1, description="blocks fetched at the same time by one process")
    steps_ahead: int = Field(4, ge=0, description="coming steps whose blocks are fetched in the background")
    verify: Literal["when-whole", "before-use"] = Field(
        "when-whole",
        description="when-whole: a shard's checksum is compared when all of it was fetched; before-use: "
        "before its first token is used, which fetches every touched shard once from end to end",
    )
