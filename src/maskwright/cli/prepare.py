"""`maskwright prepare`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ConfigError
from .common import Arguments, DryRun, Json, Output, Overwrite, Resume, run_verb, show, split_arguments

if TYPE_CHECKING:
    from ..corpus.runners import Share
    from ..jobs.prepare_config import PrepareConfig

__all__ = ["prepare"]

HEADLINE = (
    "output",
    "documents_read",
    "documents_kept",
    "drops",
    "vocab_size",
    "train_tokens",
    "bytes_per_token",
    "warnings",
)
_NOT_IN_SCRIPT = {"--slurm", "--stage", "--task", "--num-tasks", "--workers"}

Workers = Annotated[int | None, typer.Option(help="Tasks at once; by default one for each CPU.")]
Runner = Annotated[str, typer.Option(help="Who does the tasks: local processes, or a ray cluster.")]
Stage = Annotated[str | None, typer.Option(help="Do only this stage, or a share of it.")]
Task = Annotated[int, typer.Option(help="Number of this share of the stage, from 0.")]
NumTasks = Annotated[int | None, typer.Option(help="Shares of the stage; with --slurm, jobs of an array.")]
Slurm = Annotated[Path | None, typer.Option(help="Write a script that runs all stages on Slurm, and stop.")]


def prepare(
    arguments: Arguments = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    workers: Workers = None,
    runner: Runner = "local",
    stage: Stage = None,
    task: Task = 0,
    num_tasks: NumTasks = None,
    slurm: Slurm = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Raw text to clean documents, a tokenizer and token shards."""
    from ..api import resolve
    from ..corpus.runners import ShareDone
    from ..jobs.prepare import PrepareConfig, prepare_data

    recipe, overrides = split_arguments(arguments)
    config = resolve(PrepareConfig, "prepare", recipe, overrides)
    folder = output or Path("data") / ("local-docs" if recipe is None else Path(recipe).stem)
    share = _share(config, stage, task, num_tasks)
    if overwrite and (share is not None or slurm is not None):
        raise ConfigError(
            f"--overwrite does not go with {'--stage' if slurm is None else '--slurm'}: every job would "
            "start again; remove the folder first"
        )
    if slurm is not None and not dry_run:
        _write_script(config, slurm, num_tasks or 16, workers or 1)
        show({"script": str(slurm), "next": f"bash {slurm}"}, as_json=json)
        return

    def work() -> Mapping[str, Any]:
        try:
            return prepare_data(
                config,
                folder,
                resume=resume,
                overwrite=overwrite,
                workers=workers,
                runner=runner,  # type: ignore[arg-type] # checked where it is used
                share=share,
            )
        except ShareDone as done:
            return {"stage": done.share.stage, "tasks_done": done.done, "tasks_left_to_others": done.missing}

    headline = HEADLINE if share is None or share.stage == "finish" else ()
    run_verb(config, work, dry_run=dry_run, as_json=json, headline=headline)


def _share(config: PrepareConfig, stage: str | None, task: int, num_tasks: int | None) -> Share | None:
    """The share that the options ask for.

    Raises:
        ConfigError: there is no such stage or share.
    """
    from ..corpus.runners import Share
    from ..jobs.preparation.pipeline import stage_names

    if stage is None:
        if task:
            raise ConfigError(f"--task is {task}, but no --stage is given")
        return None
    names = [name for name, _ in stage_names(config)]
    if stage not in names:
        raise ConfigError(f"--stage is {stage!r}, expected one of {', '.join(names)}")
    total = 1 if num_tasks is None else num_tasks
    if not 0 <= task < total:
        raise ConfigError(f"--task is {task}, expected 0 to {total - 1} (--num-tasks is {total})")
    return Share(stage, task, total)


def _write_script(config: PrepareConfig, path: Path, num_tasks: int, cpus: int) -> None:
    """Write the script for Slurm; its command is this one without what the script itself decides."""
    from ..core.files import write_text
    from ..corpus.runners.slurm import slurm_script
    from ..jobs.preparation.pipeline import stage_names

    words: list[str] = []
    skip = False
    for word in sys.argv[1:]:
        name = word.split("=", 1)[0]
        if not skip and name not in _NOT_IN_SCRIPT:
            words.append(word)
        skip = not skip and name in _NOT_IN_SCRIPT and "=" not in word
    command = ["maskwright", *words, "--workers", str(cpus)]
    script = slurm_script(command, stage_names(config), name=path.name, num_tasks=num_tasks, cpus=cpus)
    write_text(path, script)
