"""`maskwright launch`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ConfigError
from .common import Json, Output, Overwrite, Resume, show, split_arguments

if TYPE_CHECKING:
    from ..jobs.launching import LaunchPlan
    from ..training.pretrain_config import PretrainConfig

__all__ = ["launch"]

PLACES = ("local", "slurm", "kubernetes")
KINDS = ("jobset", "pytorchjob")
GRACE_SECONDS = 300
# Options that only one place knows, by their names on the command line.
_OWN = {
    "local": ("--node-rank", "--address"),
    "slurm": ("--time", "--partition", "--account", "--sbatch"),
    "kubernetes": ("--kind", "--image", "--claim", "--memory"),
}

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="pretrain RECIPE KEY.PATH=VALUE", help="What to run: a command, as without launch."
    ),
]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes on each machine; default: one a GPU.")]
Gpus = Annotated[int | None, typer.Option(min=1, help="GPUs of each machine; as many processes.")]
Nodes = Annotated[
    str, typer.Option(metavar="N or LEAST:MOST", help="Machines; local: or how few and how many.")
]
NodeRank = Annotated[int | None, typer.Option(min=0, help="local: number of this machine, from 0.")]
Address = Annotated[str | None, typer.Option(help="local: HOST:PORT of machine 0, where all meet.")]
Restarts = Annotated[int, typer.Option(min=0, help="Starts after a crash, from the newest checkpoint.")]
On = Annotated[str, typer.Option(help="local, or write a script for slurm or kubernetes.")]
Script = Annotated[Path | None, typer.Option(help="slurm, kubernetes: file to write.")]
Grace = Annotated[
    int | None, typer.Option(min=1, help="slurm, kubernetes: seconds to save in; default: 300.")
]
Cpus = Annotated[int | None, typer.Option(min=1, help="slurm, kubernetes: CPUs of each machine.")]
Time = Annotated[str | None, typer.Option(help="slurm: time limit, such as 24:00:00.")]
Partition = Annotated[str | None, typer.Option(help="slurm: where to queue.")]
Account = Annotated[str | None, typer.Option(help="slurm: who pays.")]
Sbatch = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="slurm: a further option.")]
Kind = Annotated[str | None, typer.Option(help="kubernetes: jobset or pytorchjob.")]
Image = Annotated[str | None, typer.Option(help="kubernetes: image with maskwright in it.")]
Claim = Annotated[
    list[str] | None,
    typer.Option(metavar="CLAIM=/FOLDER", help="kubernetes: storage for all; runs begin in the first."),
]
Memory = Annotated[str | None, typer.Option(help="kubernetes: memory of each machine, such as 64Gi.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would run or be written, and stop.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although settings or data changed.")]


def launch(
    arguments: What = None,
    output: Output = None,
    processes: Processes = None,
    gpus: Gpus = None,
    nodes: Nodes = "1",
    node_rank: NodeRank = None,
    address: Address = None,
    restarts: Restarts = 3,
    on: On = "local",
    script: Script = None,
    grace: Grace = None,
    cpus: Cpus = None,
    time: Time = None,
    partition: Partition = None,
    account: Account = None,
    sbatch: Sbatch = None,
    kind: Kind = None,
    image: Image = None,
    claim: Claim = None,
    memory: Memory = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Start a run on many processes, here or by a script for a cluster."""
    own = (node_rank, address), (time, partition, account, sbatch), (kind, image, claim, memory)
    given = [
        name
        for names, values in zip(_OWN.values(), own, strict=True)
        for name, value in zip(names, values, strict=True)
        if value not in (None, [])
    ]
    scripts = {"--script": script, "--grace": grace, "--cpus": cpus}
    given += [name for name, value in scripts.items() if value is not None]
    _check_options(on, given, list(scripts), overwrite)
    from ..jobs.launching import Machines

    least, most = _nodes(nodes, on)
    if on == "local":
        _import_torch_quietly()
    words, config = _resolve(arguments)
    machines = Machines(most, *_count(config, processes, gpus, local=on == "local"), least)
    plan = _plan(words, config, output, machines, restarts, force=force, json=json)
    if on == "local":
        _launch_here(plan, config, node_rank, address, resume, overwrite, dry_run, json)
        return
    grace = grace or GRACE_SECONDS
    if on == "slurm":
        text = _slurm(plan, time, partition, account, cpus, grace, sbatch or [])
    else:
        text = _kubernetes(plan, config, kind or "jobset", image, claim or [], cpus, memory, grace)
    _write(plan, on, text, script, dry_run, json)


def _import_torch_quietly() -> None:
    """Keep stack frames of C++ from the terminal where another machine is gone; ours say it in a line.

    The variable is read once, when torch is loaded. Workers have what the user has set.
    """
    name = "TORCH_CPP_LOG_LEVEL"
    if name not in os.environ:
        os.environ[name] = "ERROR"
        import torch  # noqa: F401 # reads it

        del os.environ[name]


def _check_options(on: str, given: Sequence[str], scripts: Sequence[str], overwrite: bool) -> None:
    """Refuse options that would be ignored.

    Raises:
        ConfigError: an option is for another place, or the place is unknown.
    """
    if on not in PLACES:
        raise ConfigError(f"--on is {on!r}, expected one of {', '.join(PLACES)}")
    for place, names in _OWN.items():
        if place != on and (wrong := [name for name in names if name in given]):
            raise ConfigError(f"{wrong[0]} is for --on {place}, but --on is {on}; leave it out")
    if on == "local" and (wrong := [name for name in scripts if name in given]):
        raise ConfigError(f"{wrong[0]} is for --on slurm or kubernetes, but --on is local; leave it out")
    if on != "local" and overwrite:
        raise ConfigError(
            "--overwrite does not go into a script, as each start would begin again; remove the folder"
        )


def _nodes(text: str, on: str) -> tuple[int, int]:
    """How few machines are enough, and how many there are at most.

    Raises:
        ConfigError: the text is neither a number nor two in order, or a scheduler is to start them.
    """
    least, _, most = text.partition(":")
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in (least, most or least)]
    if not 1 <= numbers[0] <= numbers[1] or text.endswith(":"):
        raise ConfigError(
            f"--nodes is {text!r}, expected a number of machines from 1, such as 4, or two, such as 2:4, "
            "for as few as 2 and as many as 4"
        )
    if on != "local" and numbers[0] < numbers[1]:
        raise ConfigError(
            f"--nodes is {text!r}, but --on is {on}, which starts a fixed number of machines; give one number"
        )
    return numbers[0], numbers[1]


def _resolve(arguments: Sequence[str] | None) -> tuple[list[str], PretrainConfig]:
    """The words after the command, and what they mean.

    Raises:
        ConfigError: the command is none that can be launched, or a value is wrong.
    """
    from ..api import resolve
    from ..training.pretrain_config import PretrainConfig

    command, *words = arguments or [""]
    if command != "pretrain":
        raise ConfigError(f"{command!r} cannot be launched, expected: maskwright launch pretrain RECIPE ...")
    recipe, overrides = split_arguments(words)
    return words, resolve(PretrainConfig, "pretrain", recipe, overrides)


def _count(
    config: PretrainConfig, processes: int | None, gpus: int | None, *, local: bool
) -> tuple[int, int]:
    """Processes and GPUs of a machine.

    Raises:
        ConfigError: both were given and differ, or this machine has fewer GPUs.
    """
    if processes is not None and gpus is not None and processes != gpus:
        raise ConfigError(
            f"--processes is {processes} and --gpus is {gpus}; each process has one GPU, so give one"
        )
    if gpus is not None and config.device == "cpu":
        raise ConfigError(f"--gpus is {gpus}, but device is cpu; give --processes, or set device=auto")
    if not local:
        return gpus or processes or 1, gpus or 0
    found = 0
    if config.device != "cpu":
        import torch

        found = torch.cuda.device_count()
    wanted = gpus or processes or found or 1
    if (gpus or found) and wanted > found:
        raise ConfigError(
            f"{wanted} GPUs are needed, but this machine has {found}; lower --gpus or --processes"
        )
    return wanted, wanted if found else 0


def _plan(
    words: Sequence[str],
    config: PretrainConfig,
    output: Path | None,
    machines: Any,
    restarts: int,
    *,
    force: bool,
    json: bool,
) -> LaunchPlan:
    from ..jobs.launching import LaunchPlan
    from ..parallel.world import World

    for size in machines.sizes:
        World(size=size).share_layers(config.parallel.tensor).check_replicas(config.parallel.replicas)
    recipe, _ = split_arguments(words)
    folder = output or Path("runs") / (Path(recipe).stem if recipe else "pretrain")
    return LaunchPlan(
        tuple(words),
        folder,
        folder.name or "run",
        machines,
        restarts,
        force,
        json,
        config.parallel.timeout_seconds,
    )


def _launch_here(
    plan: LaunchPlan,
    config: PretrainConfig,
    node_rank: int | None,
    address: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    json: bool,
) -> None:
    from ..core.config import dump_config

    place = _meeting_place(plan, node_rank, address)
    if dry_run:
        command = [sys.executable, "-m", "maskwright", *plan.worker_arguments()]
        typer.echo(dump_config(config), err=True)
        numbers = {
            "machines": plan.machines.nodes,
            **({"machines_at_least": plan.machines.fewest} if plan.machines.elastic else {}),
            "processes": plan.machines.processes,
            "gpus": plan.machines.gpus,
        }
        show({"command": shlex.join(command), **numbers, "restarts": plan.restarts}, as_json=json)
        return
    from ..core.lock import lock_folder
    from ..jobs.launching.local import Meeting, run_workers
    from ..jobs.launching.refusals import refusal_told
    from ..jobs.launching.tied import tied_command
    from ..jobs.outputs import claim_output
    from ..training.checkpoints import refuse_used_address

    meeting = Meeting(*place)
    if meeting.node_rank == 0:  # the others come later, and would take away what this one began
        there = plan.output.exists()
        lock = lock_folder(plan.output) if there else contextlib.nullcontext()
        with refusal_told(plan.machines.nodes - 1, meeting.host, meeting.port), lock:
            if not resume:  # workers are always told to go on with what they find
                refuse_used_address(config.checkpoint.upload)
            claim_output(
                config, plan.output, resume=resume, overwrite=overwrite, force=plan.force, accept_later=True
            )
    command = tied_command(["maskwright", *plan.worker_arguments()])
    ending = run_workers(command, plan, meeting)
    if ending.verdict != "crashed" and ending.told:
        raise typer.Exit(ending.exit_code)  # rank 0 has said on this terminal what there is to say
    ending.check()


def _meeting_place(plan: LaunchPlan, node_rank: int | None, address: str | None) -> tuple[Any, ...]:
    """Number of this machine, host and port.

    Raises:
        ConfigError: what several machines need is missing, or the number is too large.
    """
    from ..jobs.launching.network import split_address

    nodes = plan.machines.nodes
    if nodes > 1 and (node_rank is None or address is None):
        raise ConfigError(
            f"--nodes is {nodes}, so each machine needs --node-rank (its number, from 0) and --address "
            "(HOST:PORT of machine 0)"
        )
    if (node_rank or 0) >= nodes:
        raise ConfigError(f"--node-rank is {node_rank}, expected 0 to {nodes - 1} (--nodes is {nodes})")
    return (0,) if address is None or nodes == 1 else (node_rank, *split_address(address))


def _slurm(
    plan: LaunchPlan,
    time: str | None,
    partition: str | None,
    account: str | None,
    cpus: int | None,
    grace: int,
    further: Sequence[str],
) -> str:
    from ..jobs.launching import SlurmPlace, slurm_text

    directives = {
        name.removeprefix("--"): value for name, _, value in (text.partition("=") for text in further)
    }
    place = SlurmPlace(time or SlurmPlace.time, partition, account, cpus, grace, directives)
    return slurm_text(plan, place)


def _kubernetes(
    plan: LaunchPlan,
    config: PretrainConfig,
    kind: str,
    image: str | None,
    claims: Sequence[str],
    cpus: int | None,
    memory: str | None,
    grace: int,
) -> str:
    """The manifest.

    Raises:
        ConfigError: an option is missing, or has another form.
    """
    from ..core.config import dump_config
    from ..jobs.launching import KubernetesPlace, manifest_text, pack_recipe

    if kind not in KINDS:
        raise ConfigError(f"--kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if image is None:
        raise ConfigError("--image is missing; name a container image that has maskwright in it")
    if not claims:
        raise ConfigError(
            "--claim is missing; name a claim of storage as CLAIM=/FOLDER, as pods forget their files"
        )
    folders: dict[str, str] = {}
    for text in claims:
        name, _, folder = text.partition("=")
        if not name or not folder.startswith("/"):
            raise ConfigError(f"--claim is {text!r}, expected CLAIM=/FOLDER")
        if folder in folders:
            raise ConfigError(
                f"--claim names {folder} twice, for {folders[folder]} and {name}; leave one out"
            )
        folders[folder] = name
    place = KubernetesPlace(image, kind, folders, cpus, memory, grace_seconds=grace)  # type: ignore[arg-type] # checked above
    config, further = pack_recipe(config, plan.output, list(folders))
    lines = dump_config(config).splitlines(keepends=True)
    return manifest_text(plan, place, "pretrain:\n" + "".join(f"  {line}" for line in lines), further)


def _write(plan: LaunchPlan, on: str, text: str, script: Path | None, dry_run: bool, json: bool) -> None:
    from ..jobs.launching import write_script

    if dry_run:
        typer.echo(text, nl=False)
        return
    path = script or Path(f"{plan.name}.sbatch" if on == "slurm" else f"{plan.name}.kubernetes.yaml")
    write_script(path, text)
    submit = ["sbatch", str(path)] if on == "slurm" else ["kubectl", "apply", "-f", str(path)]
    results: Mapping[str, Any] = {"script": str(path), "next": shlex.join(submit)}
    show(results, as_json=json)
