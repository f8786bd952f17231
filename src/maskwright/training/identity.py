"""Who a pretraining run is: its settings and its data, which every checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.changes import changed_settings
from ..core.config import dump_config, load_yaml, parse_config
from ..core.errors import ConfigError
from ..core.log import get_logger
from ..core.machine import library_versions
from ..parallel.world import World
from .pretrain_config import PretrainConfig
from .pretrain_setting import PretrainSetting

__all__ = ["VERSIONS", "RunIdentity"]

log = get_logger(__name__)
VERSIONS = ("maskwright", "torch", "tokenizers", "gigatoken", "numpy", "transformers")


class RunIdentity:
    """What manifests say about a run, and whether one of them is of this run.

    Args:
        setting: of the run.
        world: its processes.
        force: take other settings and data for the same run; what differs is logged once.
    """

    def __init__(self, setting: PretrainSetting, world: World, *, force: bool = False) -> None:
        self._config, self._force = setting.config, force
        self._told = False
        self.about: dict[str, Any] = {
            "config": dump_config(setting.config),
            "data": setting.manifest.fingerprint,
            "shape": setting.shape.model_dump(),
            "versions": library_versions(VERSIONS),
            "processes": world.size,
        }

    def differs(self, manifest: Mapping[str, Any]) -> Sequence[str]:
        """What decides what comes out of a run, and is another than here.

        Args:
            manifest: of a checkpoint.
        """
        try:
            values = load_yaml(str(manifest.get("config", "")).encode(), "its config")
            found = changed_settings(parse_config(PretrainConfig, values, "its config"), self._config)
        except ConfigError as error:
            found = [str(error)]
        if manifest.get("data") != self.about["data"]:
            found.append(f"the data had fingerprint {manifest.get('data')}, now {self.about['data']}")
        if not self._force:
            return found
        if found and not self._told:
            log.warning("copies of checkpoints of other settings or data, as forced: %s", "; ".join(found))
        self._told = self._told or bool(found)
        return ()
