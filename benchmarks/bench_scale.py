"""Two processes against one, memory of shards against the planner, and what saving costs.

Each engine runs in fresh processes on this machine, with one thread a process where there are two.
Throughput per core is compared with one process that has both cores, with one that has a single core and
the other one idle, and with two that have nothing to do with each other: so much of a core is lost because
two share a memory, and the rest is the price of the engine. Numbers of the planner are predictions made
before. The setups follow each other in several rounds, since a machine is not as fast at all times; speeds
are those of the median step of all rounds, memory is the most that was seen.

    python benchmarks/bench_scale.py            half an hour on two cores
    python benchmarks/bench_scale.py --smoke    a tiny model, to see that it works
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import parser, save, table
from prediction import predicted_rank_bytes

RANK = Path(__file__).with_name("scale_rank.py")
# Processes, threads of each, and what the engine is called.
SETUPS: dict[str, dict[str, Any]] = {
    "single, 2 threads": {"processes": 1, "threads": 2, "engine": "single"},
    "single, 1 thread": {"processes": 1, "threads": 1, "engine": "single"},
    "two apart, 1 thread each": {"processes": 2, "threads": 1, "engine": "single"},
    "ddp, 2 x 1 thread": {"processes": 2, "threads": 1, "engine": "ddp"},
    "fsdp2, 2 x 1 thread": {"processes": 2, "threads": 1, "engine": "fsdp2"},
    "fsdp2 with tensor 2, 2 x 1 thread": {"processes": 2, "threads": 1, "engine": "fsdp2", "tensor": 2},
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(options: argparse.Namespace, setup: dict[str, Any], *, saving: bool = False) -> dict[str, Any]:
    """One setup in processes of its own; what rank 0 said, or all of them where each is alone."""
    count, threads, port = setup["processes"], setup["threads"], _free_port()
    # A tensor-parallel group works on the same samples together.
    shared = setup.get("tensor", 1)
    micro_batches = options.micro_batches * (2 if shared > 1 or count == 1 else 1)
    command = [
        *(sys.executable, str(RANK), f"--engine={setup['engine']}", f"--threads={threads}"),
        *(f"--tensor={shared}", f"--micro-batches={micro_batches}", f"--folder={options.folder}"),
    ]
    names = ("size", "precision", "micro", "length", "vocab", "steps", "warmup")
    command += [f"--{name}={getattr(options, name)}" for name in names]
    command += ["--saving"] if saving else []
    processes = []
    for rank in range(count):
        variables = {"OMP_NUM_THREADS": str(threads)}
        if setup["engine"] != "single":
            variables |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{setup['engine']}: a process failed, see above")
    first, *others = [json.loads(output.splitlines()[-1]) for output in outputs if output]
    for other in others:
        first["seconds"] += other["seconds"]
        first["tokens_per_step"] += other["tokens_per_step"]
        first["peak_memory_bytes"] += other["peak_memory_bytes"]
    found: dict[str, Any] = first
    return found


def _join(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rounds of a setup say together."""
    seconds = [one for found in rounds for one in found["seconds"]]
    peaks = [max(ranks) for ranks in zip(*(found["peak_memory_bytes"] for found in rounds), strict=True)]
    speed = rounds[0]["tokens_per_step"] / statistics.median(seconds)
    return {**rounds[0], "seconds": seconds, "peak_memory_bytes": peaks, "tokens_per_second": speed}


def _table(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    both = found["single, 2 threads"]["tokens_per_second"]
    alone = found["single, 1 thread"]["tokens_per_second"]
    apart = found["two apart, 1 thread each"]["tokens_per_second"]
    rows = []
    for name, values in found.items():
        speed, count = values["tokens_per_second"], SETUPS[name]["processes"] * SETUPS[name]["threads"]
        rows.append(
            [
                name,
                f"{speed:,.0f}",
                f"{speed / both * 2 / count:.0%}",
                f"{speed / count / alone:.0%}",
                f"{speed / apart * 2 / count:.0%}",
                ", ".join(f"{size / 1e9:.2f}" for size in values["peak_memory_bytes"]),
                f"{values['predicted'] / 1e9:.2f}",
            ]
        )
    header = [
        "setup",
        "tokens/s",
        "a core, of both in one",
        "a core, of one alone",
        "a core, of two apart",
        "peak GB",
        "planned GB",
    ]
    text = table(header, rows)
    tokens = found["single, 2 threads"]["tokens_per_step"]
    return f"{text}\n\n{options.size}, {options.precision}, {tokens:,} tokens a step in every setup"


def _saving_text(found: dict[str, Any]) -> str:
    step = statistics.median(found["seconds"])
    stall = statistics.median(found["stall"])
    slowed = statistics.median(sum(seconds) - step * len(seconds) for seconds in found["steps_while_writing"])
    interval = 100 * step
    return (
        f"- saving, single: holds the run up for {stall:.2f} s, {stall / interval:.2%} of 100 steps of "
        f"{step:.2f} s; steps while it writes took {max(0.0, slowed):.2f} s longer in all, together "
        f"{(stall + max(0.0, slowed)) / interval:.2%}\n"
        f"- bytes of a checkpoint over those of weights and optimiser state: "
        f"{found['bytes'] / found['state_bytes']:.4f} ({found['bytes']:,} bytes)"
    )


def main() -> None:
    """Measure all setups, one after the other."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--size", default="base", help="named model size")
    options.add_argument("--precision", default="bf16", help="of the model")
    options.add_argument("--micro", type=int, default=4, help="sequences of a micro-batch")
    options.add_argument("--micro-batches", type=int, default=4, help="of a rank and step, with two ranks")
    options.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    options.add_argument("--vocab", type=int, default=50_265, help="vocabulary entries")
    options.add_argument("--steps", type=int, default=3, help="timed steps")
    options.add_argument("--warmup", type=int, default=1, help="steps before")
    options.add_argument("--rounds", type=int, default=2, help="times that each setup is measured")
    options.add_argument("--folder", default="runs", help="where checkpoints are written")
    options.add_argument("--only", nargs="*", default=list(SETUPS), help="setups to run")
    options.add_argument("--smoke", action="store_true", help="a tiny model, a minute in all")
    given = options.parse_args()
    if given.smoke:
        given.size, given.length, given.vocab = "tiny", 64, 1_000
    Path(given.folder).mkdir(exist_ok=True)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}
    for number in range(given.rounds):
        for name, done in rounds.items():
            done.append(_run(given, SETUPS[name]))
            speed = _join(done)["tokens_per_second"]
            print(f"round {number + 1}, {name}: {speed:,.0f} tokens/s so far", file=sys.stderr)
    found = {
        name: {**_join(done), "predicted": predicted_rank_bytes(given, SETUPS[name])}
        for name, done in rounds.items()
    }
    saving = _run(given, SETUPS["single, 2 threads"], saving=True)
    text = _table(given, found) + "\n\n" + _saving_text(saving)
    save(given.name or "scale", {"setups": found, "saving": saving}, text)


if __name__ == "__main__":
    main()
