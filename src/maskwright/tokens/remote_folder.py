"""Opening a data folder by its address: what is small is fetched at once, shards when they are needed.

Manifest, tokenizer and accounts of the preparation lie afterwards in a local folder named by the manifest's
content, so that everything which expects a folder works as it does for local data. Cost: a request a small
file, each time the data is opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import DataError, OutOfReachError, ShardError
from ..core.files import is_remote, write_bytes
from ..core.fingerprint import sha256_bytes
from ..core.log import get_logger
from .cache_config import CacheConfig
from .manifest import FILE_NAME, REMEDY, Manifest, load_manifest
from .remote_files import RemoteFiles, RemoteReader
from .shard_cache import ShardCache
from .shard_files import DataFolder

__all__ = ["open_data_folder"]

log = get_logger(__name__)
_TOKENIZER = "tokenizer/tokenizer.json"
# What a data folder need not have.
_OPTIONAL = (
    "tokenizer/tokenizer_config.json",
    "tokenizer/extension.json",
    "audit.json",
    "timings.json",
    "config.yaml",
)


def open_data_folder(address: str, config: CacheConfig, reader: RemoteReader) -> DataFolder:
    """Open a data folder on this machine or on object storage.

    Args:
        address: a path, or an address such as `s3://bucket/prepared`.
        config: how shards are fetched and kept; without effect for a path.
        reader: reads objects; not used for a path.

    Raises:
        ShardError: there is no finished data at the address, or it is damaged.
        UserError: the storage cannot be reached or refuses, or the disk does.
    """
    if not is_remote(address):
        return DataFolder(Path(address), address)
    address = address.rstrip("/")
    cache = ShardCache(_cache_folder(config), config.most_bytes, config.block_bytes)
    content = reader.read(f"{address}/{FILE_NAME}", may_miss=True)
    if content is None:
        raise ShardError(f"{address}: has no {FILE_NAME}, so no finished data; check the address")
    path = cache.folder / "folders" / sha256_bytes(content)[:32]
    _keep(path / FILE_NAME, content)
    manifest = load_manifest(path)
    _fetch_small(address, path, manifest, reader)
    _tell_sizes(address, manifest, config)
    return DataFolder(path, address, RemoteFiles(address, path, reader, cache, config))


def _cache_folder(config: CacheConfig) -> Path:
    if config.folder is not None:
        return Path(config.folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskwright" / "data"


def _fetch_small(address: str, path: Path, manifest: Manifest, reader: RemoteReader) -> None:
    tokenizer = reader.read(f"{address}/{_TOKENIZER}")
    assert tokenizer is not None
    _keep(path / _TOKENIZER, tokenizer)
    for name in _OPTIONAL:
        try:
            content = reader.read(f"{address}/{name}", may_miss=True)
        except OutOfReachError:
            raise
        except DataError as error:  # some storages refuse what does not exist to whoever may not list it
            log.warning("%s; going on without it", error)
            continue
        if content is not None:
            _keep(path / name, content)
    entry = manifest.token_counts
    content = reader.read(f"{address}/{entry.path}")
    if content is None or sha256_bytes(content) != entry.sha256:
        content = reader.read(f"{address}/{entry.path}")
    if content is None or (found := sha256_bytes(content)) != entry.sha256:
        raise ShardError(
            f"{address}/{entry.path}: is damaged (SHA-256 {found}, the manifest says {entry.sha256}), also "
            f"when fetched once more; {REMEDY}"
        )
    _keep(path / entry.path, content)


def _keep(path: Path, content: bytes) -> None:
    """Write a file unless it is there as it should be; other processes may read it."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def _tell_sizes(address: str, manifest: Manifest, config: CacheConfig) -> None:
    split = manifest.splits.get("train")
    blocks = sum(shard.tokens.num_bytes for shard in split.shards) if split else 0
    if blocks > config.most_bytes:
        log.warning(
            "%s: the training split has %s bytes of tokens and the cache holds %s, so most samples fetch "
            "a block of %s bytes%s; raise cache.most_bytes",
            address,
            f"{blocks:,}",
            f"{config.most_bytes:,}",
            f"{config.block_bytes:,}",
            "" if config.verify == "before-use" else ", and checksums of shards may never be compared",
        )
