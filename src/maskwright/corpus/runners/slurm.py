"""A script that submits a prepare run to Slurm: one array for each stage, each waiting for the one before.

The tasks are the same as everywhere else; an array only says which share of a stage a job does.
Source: the options are those of `sbatch` (Slurm documentation, sbatch and job arrays).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ...core.errors import ConfigError

__all__ = ["slurm_script"]

_HEADER = """\
#!/usr/bin/env bash
# Submits the stages of one prepare run, each after the one before. Run it on a login node:
#   bash {name} [options for every sbatch, such as --partition=cpu --account=mine]
# A job that fails or is cut off can be submitted again: what is finished is not repeated.
set -euo pipefail
mkdir -p {logs}
previous=""

submit() {{ # stage, number of array tasks
  local dependency=()
  if [ -n "$previous" ]; then dependency=(--dependency="afterok:$previous" --kill-on-invalid-dep=yes); fi
  previous=$(sbatch --parsable "${{dependency[@]}}" --requeue \\
    --job-name="maskwright-$1" --array="0-$(($2 - 1))" --cpus-per-task={cpus} --time={time} --mem={memory} \\
    --output={logs}/"$1-%a.log" --open-mode=append "${{extra[@]}}" \\
    --wrap={command}" --stage $1 --task \\$SLURM_ARRAY_TASK_ID --num-tasks $2")
  previous=${{previous%%;*}}
  echo "stage $1: job $previous, $2 tasks"
}}

extra=("$@")
"""


def slurm_script(
    command: Sequence[str],
    stages: Sequence[tuple[str, bool]],
    *,
    name: str = "prepare.slurm.sh",
    num_tasks: int = 16,
    cpus: int = 1,
    memory: str = "4G",
    time: str = "24:00:00",
    logs: str = "slurm-logs",
) -> str:
    """The text of the script.

    Args:
        command: the `maskwright prepare` command of the run, without `--stage` and the like.
        stages: names in order, and whether a stage has many tasks.
        name: of the script, for its own comment.
        num_tasks: jobs of an array.
        cpus: CPUs of a job, each of which works on one task at a time.
        memory: of a job, as Slurm writes it.
        time: limit of a job, as Slurm writes it.
        logs: folder for the output of the jobs.

    Raises:
        ConfigError: a number makes no sense.
    """
    if num_tasks < 1 or cpus < 1:
        raise ConfigError(f"num_tasks is {num_tasks} and cpus is {cpus}, expected at least 1 of each")
    quoted = shlex.quote(shlex.join(command))
    header = _HEADER.format(
        name=shlex.quote(name), logs=shlex.quote(logs), cpus=cpus, time=time, memory=memory, command=quoted
    )
    lines = [f"submit {stage} {num_tasks if wide else 1}" for stage, wide in stages]
    return header + "\n".join(lines) + "\n"
