"""Wall-clock until the validation loss that HF Trainer reaches in a time budget, ours against it.

Both train on the same windows of the same shards in the same order, with the same architecture,
dropout, vocabulary, batch, optimiser and schedule, and are measured on the same validation batches with
the same masks in them. First every set of the peer's flags runs for a few steps; the fastest one is the
peer. The number of steps is what it does in `--minutes`. Then both run this schedule, one after the
other. Time is that of steps with reading and masking; evaluations are left out on both sides, and so
are the peer's compiling and our checkpoints. At the end, shorter runs with several seeds compare the
losses at equal steps.

    python benchmarks/bench_time_to_loss.py            an hour or more on an idle machine
    python benchmarks/bench_time_to_loss.py --smoke    a minute, to see that it works

Stages are kept in `--work`: the same command goes on where it stopped, while settings and code are the
same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import parser, save, table
from small_runs import CORPUS, VOCABULARY, Curve, kept, plain_options, prepare, pretrain, run_python, time_to

PEER = Path(__file__).with_name("peer_trainer_mlm.py")
# Flags of the Trainer that may make it faster; with all of them it keeps dropout, batch and optimiser.
PEER_FLAGS = {
    "fp32": {"precision": "fp32", "compile": False, "workers": 0},
    "bf16": {"precision": "bf16", "compile": False, "workers": 0},
    "fp32 compile": {"precision": "fp32", "compile": True, "workers": 0},
    "bf16 compile": {"precision": "bf16", "compile": True, "workers": 0},
    "bf16 compile 1 worker": {"precision": "bf16", "compile": True, "workers": 1},
    "bf16 compile eager attention": {
        "precision": "bf16",
        "compile": True,
        "workers": 0,
        "attention": "eager",
    },
}
SMOKE_FLAGS = ("fp32", "bf16")
WARMUP_SHARE = 0.06
# What is kept of the summary of ours.
KEPT = ("seconds", "tokens_per_second", "peak_share", "peak_memory_bytes", "precision", "num_parameters")
# Shares of the peer's run at whose losses the two are compared as well.
MARKS = (0.25, 0.5, 0.75, 1.0)


def _data(options: argparse.Namespace) -> Path:
    tokenizer: dict[str, Any] = {"path": str(options.tokenizer)}
    if options.tokenizer == "train":
        tokenizer = {"vocab_size": 8192}
    source = {"path": str(options.corpus), "name": "enwiki"}
    values = {"corpus": {"sources": [source]}, "tokenizer": tokenizer, "validation_share": 0.02}
    return prepare(options.work / "data", values)


def _windows(options: argparse.Namespace, data: Path, steps: int, seed: int) -> Path:
    """The windows that ours sees in so many steps, in order, as one array for the peer."""

    def make(folder: Path) -> dict[str, Any]:
        import numpy as np

        from maskwright.tokens.shards import open_split
        from maskwright.tokens.stream import SampleStream
        from maskwright.tokens.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(data / "tokenizer")
        split = open_split(data, "train")
        stream = SampleStream(split, options.length, tokenizer.bos_id, tokenizer.eos_id, seed)
        shape = (steps * options.batch, options.length)
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        rows = np.lib.format.open_memmap(folder / "windows.npy", "w+", dtype, shape)
        for first in range(0, len(rows), 1024):
            count = min(1024, len(rows) - first)
            rows[first : first + count] = stream.batch(first, count).ids.reshape(count, -1)
        rows.flush()
        return {}

    decides = {
        "data": json.loads((data / "manifest.json").read_text()),
        "rows": steps * options.batch,
        "length": options.length,
        "seed": seed,
    }
    folder = options.work / f"windows-{seed}-{steps}"
    kept(folder, decides, make)
    return folder / "windows.npy"


def _peer(
    options: argparse.Namespace,
    name: str,
    data: Path,
    flags: dict[str, Any],
    seed: int,
    steps: int,
    every: int,
) -> dict[str, Any]:
    """A run of the peer; `every` steps it is evaluated, 0 for never."""
    from maskwright.model.config import MODEL_SIZES

    spec = {
        "data": str(data),
        "windows": str(_windows(options, data, steps, seed)),
        "model": MODEL_SIZES[options.size],
        "dropout": options.dropout,
        "length": options.length,
        "steps": steps,
        "batch": options.batch,
        "lr": options.lr,
        "warmup_share": WARMUP_SHARE,
        "seed": seed,
        "evaluate_every": every,
        "evaluation_sequences": options.evaluation_sequences,
        "allocator": options.peer_allocator,
        "attention": "sdpa",
        **flags,
    }

    def make(folder: Path) -> dict[str, Any]:
        (folder / "spec.json").write_text(json.dumps(spec, indent=1))
        arguments = [str(PEER), str(folder / "spec.json"), str(folder / "result.json")]
        run_python(arguments, folder / "log.txt")
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return found

    return kept(options.work / name, spec, make)


def _ours(
    options: argparse.Namespace, name: str, data: Path, seed: int, steps: int, every: int
) -> dict[str, Any]:
    """A run of `maskwright pretrain` with the same settings; everything else is at its default."""
    values = {
        "data": str(data),
        "model": {
            "size": options.size,
            "hidden_dropout_prob": options.dropout,
            "attention_probs_dropout_prob": options.dropout,
        },
        "sequence_length": options.length,
        "batch": {"sequences": options.batch, "micro_sequences": options.micro or options.batch},
        "steps": steps,
        "optimizer": {"lr": options.lr},
        "schedule": {"name": "linear", "warmup_share": WARMUP_SHARE},
        "precision": options.precision,
        "device": "cpu",
        "seed": seed,
        "evaluation": {"every_steps": every, "sequences": options.evaluation_sequences},
        "checkpoint": {"every_steps": steps},
        "log_every_steps": every,
    }
    return pretrain(options.work / name, values)


def _calibrate(options: argparse.Namespace, data: Path) -> dict[str, float]:
    """Seconds of a step of the peer for each set of flags; those that do not run are left out."""
    found = {}
    for name, flags in PEER_FLAGS.items():
        if options.smoke and name not in SMOKE_FLAGS:
            continue
        folder = f"flags {name}".replace(" ", "-")
        try:
            run = _peer(options, folder, data, flags, 0, options.calibration_steps, 0)
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        found[name] = run["median_step_seconds"]
        print(f"{name}: {found[name]:.3f} s a step", file=sys.stderr)
    return found


def _compare(peer: Curve, ours: Curve, spread: float) -> list[dict[str, Any]]:
    """Times to the peer's loss at some shares of its run, and to its last one within the spread."""
    rows = []
    for share in MARKS:
        at = peer[max(0, round(share * len(peer)) - 1)]
        rows.append({"of": f"{share:.0%} of its run", "loss": at["loss"], "peer": at["seconds"]})
    last = peer[-1]
    rows.append({"of": "its end, within the spread", "loss": last["loss"] + spread, "peer": last["seconds"]})
    for row in rows:
        # The peer's loss may have been there before its mark; then that is its time.
        row["peer"] = time_to(peer, row["loss"]) or row["peer"]
        row["ours"] = time_to(ours, row["loss"])
        row["ratio"] = None if row["ours"] is None else row["ours"] / row["peer"]
    return rows


def _seeds(options: argparse.Namespace, data: Path, flags: dict[str, Any]) -> dict[str, list[float]]:
    """Last validation losses at equal steps, by side."""
    found: dict[str, list[float]] = {"hf": [], "ours": []}
    steps = options.seed_steps
    for seed in range(1, options.seeds + 1):
        hf = _peer(options, f"hf-seed-{seed}", data, flags, seed, steps, steps)
        found["hf"].append(hf["curve"][-1]["loss"])
        ours = _ours(options, f"ours-seed-{seed}", data, seed, steps, steps)
        found["ours"].append(ours["curve"][-1]["loss"])
    return found


def _spread(losses: dict[str, list[float]]) -> float:
    """Standard deviation between seeds, of both sides together; 0 where it cannot be known."""
    if min(map(len, losses.values())) < 2:
        return 0.0
    return statistics.mean(statistics.variance(values) for values in losses.values()) ** 0.5


def _text(result: dict[str, Any], options: argparse.Namespace) -> str:
    def seconds(value: float | None) -> str:
        return "not reached" if value is None else f"{value:,.0f}"

    rows = [
        [
            row["of"],
            f"{row['loss']:.4f}",
            seconds(row["peer"]),
            seconds(row["ours"]),
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
        ]
        for row in result["times"]
    ]
    text = table(["HF Trainer's loss at", "loss", "HF, s", "ours, s", "ours / HF"], rows)
    peer, ours = result["hf"], result["ours"]
    text += (
        f"\n\nHF Trainer with its fastest flags ({result['flags']}): {result['steps']:,} steps in "
        f"{peer['seconds']:,.0f} s, loss {peer['curve'][-1]['loss']:.4f}"
        f"\nours, the same steps: {ours['curve'][-1]['seconds']:,.0f} s, "
        f"loss {ours['curve'][-1]['loss']:.4f}\n\n"
    )
    speeds = [[name, f"{value:.3f}"] for name, value in result["calibration"].items()]
    text += table(["flags of HF Trainer", "s a step"], speeds)
    text += _seed_text(result["seeds"], options)
    return text + (
        f"\n\n{options.size}, batch {options.batch} x {options.length}, vocabulary {result['vocab_size']:,}, "
        f"dropout {options.dropout:g}, peak rate {options.lr:g}, linear with {WARMUP_SHARE:.0%} warm-up; "
        f"{options.evaluation_sequences} validation sequences, the same masks for both"
    )


def _seed_text(losses: dict[str, list[float]], options: argparse.Namespace) -> str:
    if len(losses["hf"]) < 2:
        return ""
    rows = [
        [
            name,
            f"{statistics.mean(values):.4f}",
            f"{statistics.stdev(values):.4f}",
            ", ".join(f"{value:.4f}" for value in values),
        ]
        for name, values in losses.items()
    ]
    difference = statistics.mean(losses["ours"]) - statistics.mean(losses["hf"])
    return (
        "\n\n"
        + table([f"loss after {options.seed_steps} steps", "mean", "standard deviation", "seeds"], rows)
        + f"\n\nours - HF: {difference:+.4f}; standard deviation between seeds {_spread(losses):.4f}"
    )


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    data = _data(options)
    calibration = _calibrate(options, data)
    fastest = min(calibration, key=lambda name: calibration[name])
    flags = PEER_FLAGS[fastest]
    steps = max(20, round(60 * options.minutes / calibration[fastest]))
    every = max(1, steps // options.evaluations)
    peer = _peer(options, "hf", data, flags, 0, steps, every)
    ours = _ours(options, "ours", data, 0, steps, every)
    losses = _seeds(options, data, flags)
    return {
        "steps": steps,
        "flags": fastest,
        "calibration": calibration,
        "vocab_size": json.loads((data / "manifest.json").read_text())["tokenizer"]["vocab_size"],
        "hf": peer,
        "ours": {"curve": ours["curve"], **{name: ours["summary"][name] for name in KEPT}},
        "times": _compare(peer["curve"], ours["curve"], _spread(losses)),
        "seeds": losses,
        "seed_spread": _spread(losses),
        "options": plain_options(options),
    }


def _options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--corpus", type=Path, default=CORPUS, help="text to train on")
    options.add_argument(
        "--tokenizer", default=VOCABULARY, help="folder of a vocabulary, or train for one of 8,192"
    )
    options.add_argument("--work", type=Path, default=Path("runs/time-to-loss"), help="where stages are kept")
    options.add_argument("--minutes", type=float, default=20, help="time of the peer's training")
    options.add_argument("--size", default="small", help="named model size")
    options.add_argument("--batch", type=int, default=64, help="sequences of a step")
    options.add_argument("--micro", type=int, help="sequences that ours computes at a time; default: all")
    options.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    options.add_argument("--dropout", type=float, default=0.1, help="everywhere, on both sides")
    options.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    options.add_argument("--precision", default="auto", help="of ours")
    options.add_argument("--evaluations", type=int, default=40, help="points of the curves")
    options.add_argument("--evaluation-sequences", type=int, default=512, help="validation sequences")
    options.add_argument("--calibration-steps", type=int, default=15, help="steps for each set of flags")
    options.add_argument("--seeds", type=int, default=3, help="seeds compared at equal steps; 0: none")
    options.add_argument("--seed-steps", type=int, default=500, help="steps of those runs")
    options.add_argument(
        "--peer-allocator", action="store_true", help="give the peer our settings of the memory allocator"
    )
    options.add_argument("--smoke", action="store_true", help="tiny, a minute in all")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.size, chosen.batch, chosen.length, chosen.minutes = "tiny", 8, 64, 0.05
        chosen.evaluations, chosen.evaluation_sequences, chosen.calibration_steps = 4, 16, 4
        chosen.seeds, chosen.seed_steps, chosen.name = min(chosen.seeds, 2), 10, chosen.name or "smoke"
        chosen.work = chosen.work.with_name(chosen.work.name + "-smoke")
    if chosen.tokenizer != "train":
        chosen.tokenizer = Path(chosen.tokenizer).resolve()
    chosen.work, chosen.corpus = chosen.work.resolve(), chosen.corpus.resolve()
    return chosen


def main() -> None:
    """Run all stages and print the tables."""
    options = _options()
    result = _measure(options)
    name = options.name or f"time_to_loss_{options.size}_{options.batch}x{options.length}"
    save(name, result, _text(result, options))


if __name__ == "__main__":
    main()
