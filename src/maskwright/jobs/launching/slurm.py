"""A batch script for Slurm: one launcher on each machine, saved and queued again when time runs out.

Slurm warns the script some seconds before the end, the script warns the launchers, and the workers save
and leave with 3. Only then is the job queued again, so a job that somebody cancels stays cancelled. What
Slurm preempts it queues again by itself.

Source: Slurm documentation, sbatch, srun and scontrol.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.config import nearest_name
from ...core.errors import ConfigError
from .plan import MARK, LaunchPlan

__all__ = ["SlurmPlace", "check_directives", "slurm_text"]

# Options of sbatch, and what their values look like; a flag has none.
_TEXT, _COUNT, _FLAG = r".+", r"[1-9]\d*", None
_TIME = r"\d+|\d+:\d{2}(:\d{2})?|\d+-\d+(:\d{2}(:\d{2})?)?|UNLIMITED|INFINITE"
_MEMORY = r"\d+[KMGT]?"
DIRECTIVES: Mapping[str, str | None] = {
    **dict.fromkeys(("account", "begin", "chdir", "clusters", "comment", "constraint", "dependency"), _TEXT),
    **dict.fromkeys(("deadline", "distribution", "error", "exclude", "export", "gpu-bind", "gres"), _TEXT),
    **dict.fromkeys(("hint", "job-name", "licenses", "mail-type", "mail-user", "network", "nodelist"), _TEXT),
    **dict.fromkeys(("output", "partition", "prefer", "priority", "qos", "reservation", "switches"), _TEXT),
    **dict.fromkeys(("gpus", "gpus-per-node", "nice", "tmp", "wckey"), _TEXT),
    **dict.fromkeys(
        ("cores-per-socket", "cpus-per-gpu", "cpus-per-task", "nodes", "ntasks-per-node"), _COUNT
    ),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _MEMORY),
    **dict.fromkeys(("exclusive", "requeue", "no-requeue", "contiguous"), _FLAG),
    "open-mode": "append|truncate",
    "signal": r"(B:|R:|RB:)?[A-Z0-9]+@\d+",
    "time": _TIME,
    "time-min": _TIME,
}
# What the script needs as it is.
_OURS = (
    "chdir",
    "cpus-per-task",
    "nodes",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "no-requeue",
    "signal",
)

_CPUS_PER_GPU = 4

_BODY = """\
set -u
# The first machine of the job is where the others meet it.
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

step=""
asked=""   # anybody asked to stop
warned=""  # Slurm did, as time runs out
trap 'asked=yes; warned=yes; kill -USR1 "$step" 2>/dev/null' USR1
trap 'asked=yes; kill -TERM "$step" 2>/dev/null' TERM INT

srun --ntasks-per-node=1 --cpus-per-task={cpus} --wait={wait} \\
  bash -c 'exec "$@" --node-rank "$SLURM_NODEID"' launch \\
  {command} \\
  --address "$host:$port" &
step=$!
if [ -n "$asked" ]; then kill -TERM "$step"; fi

# A signal ends `wait` before the step ends.
while :; do
  asked=""
  wait "$step"
  code=$?
  if [ -z "$asked" ] || [ "$code" -le 128 ]; then break; fi
done

if [ "$code" -eq 3 ] && [ -n "$warned" ]; then
  echo "saved before the time limit; queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True)
class SlurmPlace:
    """How a job asks Slurm for machines.

    Attributes:
        time: limit, as Slurm writes it.
        partition: where to queue; None leaves it to Slurm.
        account: who pays; None leaves it to Slurm.
        cpus: of a machine; None takes some for each process.
        grace_seconds: between the warning and the end; saving must fit in.
        directives: further options of sbatch by name; the value of a flag is empty.
        chdir: where the job runs, so relative paths mean what they mean here.
        python: the interpreter that has maskwright.
    """

    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    cpus: int | None = None
    grace_seconds: int = 300
    directives: Mapping[str, str] = field(default_factory=dict)
    chdir: Path = field(default_factory=Path.cwd)
    python: str = sys.executable


def check_directives(values: Mapping[str, str | None]) -> None:
    """Make sure that Slurm will understand the options of a script.

    Args:
        values: by name; None or empty for a flag.

    Raises:
        ConfigError: a name is unknown, or a value is not what Slurm takes.
    """
    for name, value in values.items():
        if name not in DIRECTIVES:
            raise ConfigError(f'"{name}" is no option of sbatch{nearest_name(name, list(DIRECTIVES))}')
        if not (value or "").isprintable():
            raise ConfigError(f"--{name} is {value!r}; sbatch cannot read line breaks, so take them out")
        pattern = DIRECTIVES[name]
        if pattern is None and value:
            raise ConfigError(f"--{name} of sbatch takes no value, but {value!r} was given; leave it out")
        if pattern is not None and not re.fullmatch(pattern, value or ""):
            raise ConfigError(
                f"--{name} of sbatch is {value or ''!r}, expected {_EXPECTED.get(name, 'a value')}"
            )


_EXPECTED = {
    "time": "minutes, HH:MM:SS or D-HH:MM:SS",
    "time-min": "minutes, HH:MM:SS or D-HH:MM:SS",
    "mem": "a number with K, M, G or T",
    "cpus-per-task": "a number from 1",
}


def slurm_text(plan: LaunchPlan, place: SlurmPlace = SlurmPlace()) -> str:
    """The script.

    Args:
        plan: what to run on how many machines.
        place: what to ask Slurm for.

    Raises:
        ConfigError: an option that Slurm does not know, or one that the script decides itself.
    """
    taken = [name for name in place.directives if name in _OURS]
    if taken:
        raise ConfigError(f"--sbatch {taken[0]}: the script sets this itself; leave it out")
    directives = _directives(plan, place)
    check_directives(directives)
    head = [
        f"#SBATCH --{name}" + (f"={shlex.quote(value)}" if value else "")
        for name, value in directives.items()
    ]
    command = [place.python, "-m", "maskwright", *plan.launch_arguments()]
    wait = round(plan.timeout_seconds + place.grace_seconds)
    body = _BODY.format(command=shlex.join(command), wait=wait, cpus=directives["cpus-per-task"])
    return "\n".join(["#!/usr/bin/env bash", f"{MARK}. Submit it with sbatch.", *head, "", body])


def _directives(plan: LaunchPlan, place: SlurmPlace) -> dict[str, str | None]:
    machines = plan.machines
    wanted: dict[str, str | None] = {
        "job-name": plan.name,
        "nodes": str(machines.nodes),
        "ntasks-per-node": "1",
        "gpus-per-node": str(machines.gpus) if machines.gpus else None,
        "cpus-per-task": str(place.cpus or machines.processes * (_CPUS_PER_GPU if machines.gpus else 1)),
        "time": place.time,
        "partition": place.partition,
        "account": place.account,
        "chdir": str(place.chdir),
        "output": "slurm-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{place.grace_seconds}",
    }
    given = {name: value for name, value in wanted.items() if value}
    own = {"time": place.time, "partition": place.partition, "account": place.account}
    twice = [name for name, value in own.items() if value and place.directives.get(name, value) != value]
    if twice:
        name = twice[0]
        raise ConfigError(
            f"--{name} is {own[name]}, but --sbatch says {name}={place.directives[name]}; leave one out"
        )
    return {**given, "requeue": None, **place.directives}
