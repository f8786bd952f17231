"""The files of a data folder, read once and without trusting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inputs import read_config
from ..values import Object, mapping, read_object

__all__ = ["DataInputs", "read_data_folder"]


@dataclass(frozen=True)
class DataInputs:
    """What a data folder says about itself; what it does not say is empty.

    Args:
        name: name of the folder.
        audit: `audit.json`, what came in and what became of it.
        timings: `timings.json`, how long each stage took.
        manifest: `manifest.json`, the shards.
        config: `config.yaml` as text, or None.
        problems: what is wrong with those files, as starts of sentences.
    """

    name: str
    audit: Object
    timings: Object
    manifest: Object
    config: str | None
    problems: Sequence[str]

    @property
    def sources(self) -> dict[str, Object]:
        """The account of each source, by name."""
        found = mapping(self.audit.get("sources"))
        return {str(name): mapping(source) for name, source in found.items()}


def read_data_folder(folder: Path) -> DataInputs:
    """Read what a report needs of a data folder; a missing or damaged file leaves its part empty."""
    read = [read_object(folder, name, "data") for name in ("audit.json", "timings.json", "manifest.json")]
    config = read_config(folder)
    problems = [problem for _, problem in read if problem is not None]
    if config is None:
        problems.append(f"{folder.name}/config.yaml is missing")
    (audit, _), (timings, _), (manifest, _) = read
    return DataInputs(folder.name, audit, timings, manifest, config, problems)
