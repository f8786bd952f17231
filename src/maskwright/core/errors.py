"""Every error that Maskwright raises on purpose, in one tree.

    MaskwrightError                  exit 1   ours; a bug report is welcome
    ├── UserError (ValueError)       exit 2   the input can be mended by the person who gave it
    │   ├── ConfigError                       a recipe, a key, a value, a command line
    │   ├── DataError                         text, labels, files that hold them
    │   │   └── OutOfReachError      exit 1   a storage that a run needs does not answer; it may pass
    │   ├── ShardError                        token shards and their manifest
    │   ├── TokenizerError                    vocabulary files, or a vocabulary that does not fit
    │   ├── CheckpointError                   a checkpoint or an exported model folder
    │   ├── OutputExistsError                 the output folder holds something already
    │   ├── StorageError                      disk full, permission, a device that fails
    │   └── MissingDependencyError            an optional library; names the install line
    ├── WorkerLost                   exit 1   another process of the run died or hangs (training/watch.py)
    └── Interrupted                  exit 3   stopped by a signal; the same command goes on

A message names the value, the place and the remedy, in that order.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Interrupted",
    "MaskwrightError",
    "MissingDependencyError",
    "OutOfReachError",
    "OutputExistsError",
    "ShardError",
    "StorageError",
    "TokenizerError",
    "UserError",
]


class MaskwrightError(Exception):
    """Root of the tree. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UserError(MaskwrightError, ValueError):
    """Something given to Maskwright cannot be used as it is."""

    exit_code = 2


class ConfigError(UserError):
    """A recipe, key, value or command line that cannot be understood."""


class DataError(UserError):
    """Input text or labels that cannot be read or used."""


class OutOfReachError(DataError):
    """A storage far away did not answer for as long as a run waits; nothing is wrong with what was given.

    Starting the same command again goes on, which launchers and schedulers do by themselves.
    """

    exit_code = 1


class ShardError(UserError):
    """Token shards that are missing, damaged or made for something else."""


class TokenizerError(UserError):
    """Vocabulary files that cannot be read, or that do not fit the data or the model."""


class CheckpointError(UserError):
    """A checkpoint or exported model that is missing, damaged or does not fit."""


class OutputExistsError(UserError):
    """The output folder is not empty and nobody said what to do with it."""


class StorageError(UserError):
    """The storage refused: disk full, no permission, input/output error."""


class MissingDependencyError(UserError):
    """An optional library is not installed.

    Args:
        library: name of the import that failed.
        extra: the extra of this package that brings it.
        purpose: what it is needed for, as the end of "needed to ...".
    """

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{library} is not installed, and it is needed to {purpose}; "
            f"install it with: pip install 'maskwright[{extra}]'"
        )
        self._arguments = (library, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        """Rebuild from the arguments, so that the error can come back from a worker process."""
        return type(self), self._arguments


class Interrupted(MaskwrightError):  # noqa: N818 - it is not a fault
    """Stopped by a signal after the work so far was made safe."""

    exit_code = 3
