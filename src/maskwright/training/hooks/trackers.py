"""The services that a run's numbers can go to, each behind the same three calls.

The libraries are imported when a tracker is made, so a missing one is told before training begins.
"""

from __future__ import annotations

import importlib
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import MissingDependencyError

__all__ = ["Mlflow", "Trackio", "Wandb", "flat_config"]

# What mlflow's server takes in one call, and how long a value of a parameter may be.
_MLFLOW_PARAMS, _MLFLOW_VALUE = 100, 500


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(name, "track", f"send the numbers of a run to {name}") from error


def flat_config(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names and values of a nested config."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat_config(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Wandb:
    """Weights & Biases. The x axis is our step, so that steps done again after a resume are drawn too.

    Args:
        project: its project.
        run_name: shown for the run.

    Raises:
        MissingDependencyError: wandb is not installed.
    """

    name = "wandb"

    def __init__(self, project: str, run_name: str) -> None:
        self._library = _library("wandb")
        self.project, self.run_name = project, run_name
        self._run: Any = None

    def open(self, known_id: str | None, folder: Path, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with a known one."""
        run_id = known_id or uuid.uuid4().hex
        self._run = self._library.init(
            project=self.project,
            name=self.run_name,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )
        self._run.define_metric("step")
        for kind in ("train", "validation"):
            self._run.define_metric(f"{kind}/*", step_metric="step")
        return run_id

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers as `kind/name`."""
        self._run.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def close(self, summary: Mapping[str, Any], *, finished: bool) -> None:
        """Set the summary and end the run."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """An mlflow tracking server or folder, as `MLFLOW_TRACKING_URI` says.

    Args:
        project: name of the experiment.
        run_name: shown for the run.

    Raises:
        MissingDependencyError: mlflow is not installed.
    """

    name = "mlflow"

    def __init__(self, project: str, run_name: str) -> None:
        self._library = _library("mlflow")
        self._entities = _library("mlflow.entities")
        self.project, self.run_name = project, run_name
        self._client: Any = None
        self._run_id = ""

    def open(self, known_id: str | None, folder: Path, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with a known one."""
        self._client = self._library.MlflowClient()
        if known_id is not None:
            self._client.update_run(known_id, status="RUNNING")
            self._run_id = known_id
            return known_id
        experiment = self._client.get_experiment_by_name(self.project)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(self.project)
        )
        self._run_id = str(self._client.create_run(number, run_name=self.run_name).info.run_id)
        params = [
            self._entities.Param(name, str(value)[:_MLFLOW_VALUE]) for name, value in flat_config(config)
        ]
        for first in range(0, len(params), _MLFLOW_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + _MLFLOW_PARAMS])
        return self._run_id

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers as `kind/name`; what is not finite is left out, as databases refuse it."""
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(f"{kind}/{name}", value, now, step)
            for name, value in values.items()
            if math.isfinite(value)
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, summary: Mapping[str, Any], *, finished: bool) -> None:
        """Keep the summary as a file of the run and end it."""
        self._client.log_dict(self._run_id, dict(summary), "summary.json")
        self._client.set_terminated(self._run_id, status="FINISHED" if finished else "KILLED")


class Trackio:
    """trackio, which keeps its database on this machine.

    Args:
        project: its project.
        run_name: shown for the run, and what a resumed run is found by.

    Raises:
        MissingDependencyError: trackio is not installed.
    """

    name = "trackio"

    def __init__(self, project: str, run_name: str) -> None:
        self._library = _library("trackio")
        self.project, self.run_name = project, run_name
        self._run: Any = None

    def open(self, known_id: str | None, folder: Path, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with a known one; a name that is taken gets another ending."""
        name = known_id or f"{self.run_name}-{uuid.uuid4().hex[:6]}"
        self._run = self._library.init(
            project=self.project, name=name, config=dict(flat_config(config)), resume="allow", embed=False
        )
        return name

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers as `kind/name`."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self, summary: Mapping[str, Any], *, finished: bool) -> None:
        """Log the summary as `summary/name` at the last step, and end the run."""
        step = summary.get("step")
        values = {f"summary/{name}": value for name, value in summary.items() if name != "step"}
        self._run.log({**values, "summary/finished": int(finished)}, step=step)
        self._run.finish()
