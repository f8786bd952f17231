"""Choose a runner by name, and how many processes it starts."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ...core.errors import ConfigError
from ...core.machine import available_cores
from .local import run_locally
from .stage import Runner

__all__ = ["RunnerName", "make_runner"]

RunnerName = Literal["local", "ray"]


def make_runner(name: RunnerName = "local", workers: int | None = None) -> Runner:
    """A runner.

    Args:
        name: `local` for processes on this machine, `ray` for a Ray cluster.
        workers: how many tasks may run at once; by default as many as there are CPUs.

    Raises:
        ConfigError: the name or the number makes no sense.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")
    if name == "local":
        return partial(run_locally, workers=workers or available_cores())
    if name == "ray":
        from .ray_cluster import run_on_ray

        return partial(run_on_ray, workers=workers)
    raise ConfigError(f"runner is {name!r}, expected local or ray")
