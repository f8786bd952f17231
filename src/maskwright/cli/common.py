"""What the commands share: arguments, the dry run, and how results are shown."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ConfigError
from ..core.log import process_rank

if TYPE_CHECKING:
    from ..core.config import Config

__all__ = [
    "Arguments",
    "DryRun",
    "Json",
    "Output",
    "Overwrite",
    "Resume",
    "job_command",
    "job_runner",
    "run_verb",
    "show",
    "split_arguments",
]

Job = Callable[..., Mapping[str, Any]]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE KEY.PATH=VALUE", help="Recipe name or YAML file, then changes to it."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write to.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as one JSON object, last on stdout.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in the output folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove what is in the output folder first.")]


def split_arguments(arguments: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Tell the recipe or folder from the overrides.

    Returns:
        The first argument if it is no `key=value`, and the overrides.

    Raises:
        ConfigError: a later argument is no `key=value`.
    """
    rest = list(arguments or [])
    first = rest.pop(0) if rest and not _is_override(rest[0]) else None
    for text in rest:
        if not _is_override(text):
            raise ConfigError(f"{text!r}: is not an override, expected key.path=value")
    return first, rest


def _is_override(text: str) -> bool:
    name, separator, _ = text.partition("=")
    return bool(separator) and all(part.isidentifier() for part in name.split("."))


def job_runner(
    section: str,
    load: Callable[[], tuple[type[Config], Job]],
    headline: Sequence[str],
    default_output: Callable[[str | None], Path],
) -> Callable[..., None]:
    """Make what runs a job from the arguments that all jobs have, and further ones for the job itself.

    Args:
        section: name of the command and of its part of a recipe.
        load: imports the job when it is needed; returns its config class and its function.
        headline: names of the results that people want to see.
        default_output: the output folder for a recipe's name, or for none.
    """

    def run(
        arguments: Sequence[str] | None,
        *,
        output: Path | None,
        resume: bool,
        overwrite: bool,
        dry_run: bool,
        json: bool,
        **further: Any,
    ) -> None:
        from ..api import resolve

        recipe, overrides = split_arguments(arguments)
        config_class, job = load()
        config = resolve(config_class, section, recipe, overrides)
        folder = output or default_output(None if recipe is None else Path(recipe).stem)
        run_verb(
            config,
            lambda: job(config, folder, resume=resume, overwrite=overwrite, **further),
            dry_run=dry_run,
            as_json=json,
            headline=headline,
        )

    return run


def job_command(
    section: str,
    help_text: str,
    load: Callable[[], tuple[type[Config], Job]],
    headline: Sequence[str],
    default_output: Callable[[str | None], Path],
) -> Callable[..., None]:
    """Make the command of a job that has no arguments of its own; as `job_runner`.

    Args:
        section: name of the command and of its part of a recipe.
        help_text: what it does, in a line.
        load: imports the job when it is needed; returns its config class and its function.
        headline: names of the results that people want to see.
        default_output: the output folder for a recipe's name, or for none.
    """
    run = job_runner(section, load, headline, default_output)

    def command(
        arguments: Arguments = None,
        output: Output = None,
        resume: Resume = False,
        overwrite: Overwrite = False,
        dry_run: DryRun = False,
        json: Json = False,
    ) -> None:
        run(arguments, output=output, resume=resume, overwrite=overwrite, dry_run=dry_run, json=json)

    command.__name__, command.__doc__ = section, help_text
    return command


def run_verb(
    config: Config,
    work: Callable[[], Mapping[str, Any]],
    *,
    dry_run: bool,
    as_json: bool,
    headline: Sequence[str],
) -> None:
    """Print the resolved config, do the work, and show its results.

    Args:
        config: the resolved config.
        work: does it and returns the results.
        dry_run: stop after printing.
        as_json: print the results as JSON.
        headline: names of the results that people want to see.
    """
    from ..core.config import VERSION_KEY, dump_config

    if dry_run:
        if as_json:
            print_json({VERSION_KEY: config.format_version, **config.model_dump(mode="json")})
        else:
            typer.echo(dump_config(config), nl=False)
        return
    if process_rank() == 0:
        typer.echo(dump_config(config), err=True)
    results = work()
    if process_rank() == 0:
        show(results, as_json=as_json, headline=headline)


def show(results: Mapping[str, Any], *, as_json: bool, headline: Sequence[str] | None = None) -> None:
    """Show results: all of them as one JSON line, or some of them as aligned text."""
    if as_json:
        print_json(results)
        return
    names = [name for name in (headline or results) if name in results]
    width = max((len(name) for name in names), default=0)
    for name in names:
        typer.echo(f"{name.replace('_', ' '):<{width}}  {_text(results[name])}")


def print_json(value: Any) -> None:
    """One line of JSON on stdout; numbers that JSON does not know become null."""
    sys.stdout.flush()
    typer.echo(json.dumps(_finite(value), ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        return f"{value['value']:.4f}  ({value['low']:.4f} to {value['high']:.4f})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(child)}" for name, child in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_text(child) for child in value) or "none"
    return str(value)
