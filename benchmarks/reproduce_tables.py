"""RoBERTa's comparisons of masking, input format and batch size, at a small scale; and of what is masked.

The paper (arXiv 1907.11692) trains BERT base for days and compares by fine-tuning (tables 1 and 2) or by
perplexity (table 3). Here a small encoder is trained for minutes on English Wikipedia, every setting with
the same number of tokens, and compared by the validation loss that does not depend on the setting: the
same windows of text with the same masked tokens. That says whether the settings work and which way they
lean at this scale. It says nothing about fine-tuning, and a difference below the spread of the seeds says
nothing at all.

    python benchmarks/reproduce_tables.py --minutes-per-run 3 --seeds 2    some hours on two cores
    python benchmarks/reproduce_tables.py --smoke                          some minutes, to see that it works

Runs are kept in `--work`: the same command goes on where it stopped, while settings and code are the
same. With `--hours` it starts no run after that time, and the table says what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import parser, save, table
from small_runs import CORPUS, kept, plain_options, prepare, pretrain

# In every comparison the first setting is the one that the others are compared with.
GROUPS = ("masking", "formats", "batches", "units")
TITLES = {
    "masking": "Masks that change or not, many epochs over little text (the paper's table 1)",
    "formats": "Input formats (table 2)",
    "batches": "Batch size at equal samples, best of the learning rates tried (table 3)",
    "units": "What is masked together",
}
# Bytes of English text that a token of a vocabulary of 8,192 stands for, roughly.
BYTES_PER_TOKEN = 4.0


@dataclass(frozen=True)
class Setting:
    """One row of a comparison; of several variants of it the best counts.

    Attributes:
        label: how the row is called.
        paper: what the paper reports of it.
        variants: changes to the settings of the reference, by dotted key.
        few: trains on little text.
    """

    label: str
    paper: str = ""
    variants: tuple[dict[str, Any], ...] = field(default=({},))
    few: bool = False


def _groups(options: argparse.Namespace) -> dict[str, list[Setting]]:
    batch, lr = options.batch, options.lr
    sizes = {
        batch: "ppl 3.99, MNLI 84.7",
        4 * batch: "ppl 3.68, MNLI 85.2",
        16 * batch: "ppl 3.77, MNLI 84.6",
    }
    papers = ("256 sequences", "2K", "8K")
    formats = {
        "full-sentences": "SQuAD 79.1, MNLI 84.7, RACE 64.8",
        "doc-sentences": "SQuAD 79.7, MNLI 84.7, RACE 65.6",
        "segment-pair": "SQuAD 78.7, MNLI 84.0, RACE 64.2",
        "sentence-pair": "SQuAD 76.2, MNLI 82.9, RACE 63.0",
        "windows": "not in the paper",
    }
    return {
        "masking": [
            Setting("dynamic", "SQuAD 78.7, MNLI 84.0", few=True),
            _static(10, "SQuAD 78.3, MNLI 84.3"),
            _static(1, "not in the paper"),
        ],
        "formats": [Setting(name, paper, ({"format.name": name},)) for name, paper in formats.items()],
        "batches": [
            Setting(
                f"{size} sequences",
                f"{called}: {paper}",
                tuple(
                    {"batch.sequences": size, "optimizer.lr": lr * (size / batch) ** 0.5 * factor}
                    for factor in options.lr_factors
                ),
            )
            for (size, paper), called in zip(sizes.items(), papers, strict=True)
        ],
        "units": [Setting(unit, "", ({"masking.unit": unit},)) for unit in ("token", "word", "span")],
    }


def _static(copies: int, paper: str) -> Setting:
    called = f"static, {copies} " + ("copies" if copies > 1 else "copy")
    return Setting(called, paper, ({"masking.static_copies": copies},), few=True)


def _split(options: argparse.Namespace, few_bytes: int) -> dict[str, Any]:
    """Two files of the corpus: the first documents, about so many bytes of them, and all others."""
    import zstandard

    def make(folder: Path) -> dict[str, Any]:
        with options.corpus.open("rb") as file:
            content = file.read()
        if options.corpus.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
            content = reader.read()
        end = content.find(b"\n", few_bytes) + 1
        (folder / "few.jsonl").write_bytes(content[:end])
        (folder / "rest.jsonl").write_bytes(content[end:])
        return {name: str(folder / f"{name}.jsonl") for name in ("few", "rest")}

    return kept(options.work / "text", {"corpus": str(options.corpus), "few_bytes": few_bytes}, make)


def _data(options: argparse.Namespace, few_tokens: int | None) -> Path:
    """All of the corpus; or the same with training on its first documents alone, validation unchanged."""
    values: dict[str, Any] = {
        "corpus": {"sources": [{"path": str(options.corpus), "name": "enwiki"}]},
        "tokenizer": {"vocab_size": options.vocab},
        "validation_share": 0.02,
        "sentences": True,
    }
    if few_tokens is None:
        return prepare(options.work / "data", values)
    files = _split(options, round(BYTES_PER_TOKEN * few_tokens))
    values["corpus"] = {"sources": [{"path": path, "name": name} for name, path in files.items()]}
    # A source that is not named has no part in training; its validation documents are measured.
    values["mixture"] = {"weights": {"few": 1.0}}
    values["tokenizer"] = {"path": str(options.work / "data" / "data" / "tokenizer")}
    return prepare(options.work / "data-few", values)


def _values(
    options: argparse.Namespace, data: Path, changes: dict[str, Any], seed: int, tokens: int
) -> dict[str, Any]:
    """Settings of a run that sees so many tokens."""
    values: dict[str, Any] = {
        "data": str(data),
        "model": {"size": options.size},
        "sequence_length": options.length,
        # Samples of sentences are not quite full: steps are filled by tokens, so that all have as many.
        "format": {"name": "full-sentences", "steps_by_tokens": True},
        "batch": {"sequences": options.batch, "micro_sequences": min(options.batch, options.micro)},
        "optimizer": {"lr": options.lr},
        "schedule": {"warmup_share": 0.06},
        "device": options.device,
        "seed": seed,
    }
    for key, value in changes.items():
        *parents, name = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    values["batch"]["micro_sequences"] = min(values["batch"]["sequences"], options.micro)
    steps = max(4, round(tokens / (values["batch"]["sequences"] * options.length)))
    evaluation = {"every_steps": steps, "sequences": options.evaluation_sequences, "per_source": False}
    return {**values, "steps": steps, "evaluation": evaluation, "checkpoint": {"every_steps": steps}}


def _run(options: argparse.Namespace, values: dict[str, Any]) -> dict[str, Any]:
    key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    result = pretrain(options.work / f"run-{key}", values)
    point, summary = result["curve"][-1], result["summary"]
    return {
        "loss": point["loss"],
        "accuracy": point["accuracy"],
        "tokens": summary["tokens_seen"],
        "seconds": summary["seconds"],
        "values": {name: value for name, value in values.items() if name != "data"},
    }


def _tokens(options: argparse.Namespace, data: Path) -> int:
    """Tokens of a run: as given, or what the reference does in the minutes of a run."""
    if options.tokens:
        return int(options.tokens)
    trial = 30 * options.batch * options.length
    found = _run(options, _values(options, data, {}, 0, trial))
    speed = found["tokens"] / found["seconds"]
    return round(60 * options.minutes_per_run * speed)


def _training_tokens(data: Path) -> float:
    """Tokens of one epoch."""
    from maskwright.tokens.shards import open_split

    return sum(source.num_tokens * source.repeats for source in open_split(data, "train").sources)


def _measure(options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """All runs, seeds outermost, so that an early end leaves whole comparisons of fewer seeds."""
    data = _data(options, None)
    tokens = _tokens(options, data)
    few = data
    if "masking" in options.only:
        few = _data(options, max(tokens // options.epochs, options.length * 64))
    groups = {name: settings for name, settings in _groups(options).items() if name in options.only}
    found: dict[str, dict[str, list[list[dict[str, Any]]]]] = {
        name: {setting.label: [[] for _ in setting.variants] for setting in settings}
        for name, settings in groups.items()
    }
    for seed in range(options.seeds):
        for name, settings in groups.items():
            for setting in settings:
                for number, changes in enumerate(setting.variants):
                    if time.monotonic() > deadline:
                        continue
                    values = _values(options, few if setting.few else data, changes, seed, tokens)
                    run = _run(options, values)
                    print(f"{name}: {setting.label}: loss {run['loss']:.4f}", file=sys.stderr)
                    found[name][setting.label][number].append(run)
    return {"tokens": tokens, "epochs": tokens / _training_tokens(few), "groups": found}


def _best(variants: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The runs of the variant with the lowest mean loss, of those that have the most seeds."""
    most = max(map(len, variants))
    full = [runs for runs in variants if len(runs) == most and runs]
    return min(full, key=lambda runs: statistics.mean(run["loss"] for run in runs), default=[])


def _row(setting: Setting, runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> list[str]:
    if not runs:
        return [setting.label, setting.paper, "not run", "", "", "", ""]
    losses = [run["loss"] for run in runs]
    differences = [run["loss"] - other["loss"] for run, other in zip(runs, reference, strict=False)]
    difference = f"{statistics.mean(differences):+.3f}" if runs is not reference and differences else ""
    if difference and len(differences) > 1:
        difference += f" ({min(differences):+.3f} to {max(differences):+.3f})"
    rate = runs[0]["values"]["optimizer"]["lr"]
    label = setting.label + (f", rate {rate:.2g}" if len(setting.variants) > 1 else "")
    return [
        label,
        setting.paper,
        f"{statistics.mean(losses):.3f}",
        f"{statistics.stdev(losses):.3f}" if len(losses) > 1 else "one seed",
        difference,
        f"{statistics.mean(run['accuracy'] for run in runs):.1%}",
        f"{statistics.mean(run['tokens'] for run in runs) / 1e6:.2f}",
    ]


def _text(result: dict[str, Any], options: argparse.Namespace) -> str:
    rows = []
    for name, settings in _groups(options).items():
        if name not in result["groups"]:
            continue
        best = [_best(result["groups"][name][setting.label]) for setting in settings]
        rows.append([f"**{TITLES[name]}**", *[""] * 6])
        rows += [_row(setting, runs, best[0]) for setting, runs in zip(settings, best, strict=True)]
    header = [
        "setting",
        "paper",
        "loss",
        "deviation of seeds",
        "against the first (lowest to highest)",
        "accuracy",
        "M tokens",
    ]
    return table(header, rows) + (
        f"\n\n{options.size} encoder, vocabulary {options.vocab:,}, sequences of {options.length} tokens, "
        f"batch {options.batch} unless said, {result['tokens'] / 1e6:.2f} million tokens a run, seeds: "
        f"{options.seeds}; loss and accuracy on the same validation windows and masks for all. Masking is "
        f"compared on {result['epochs']:.0f} epochs over little text. The paper's numbers are of BERT base "
        "and of other measures (SQuAD 2.0 F1, MNLI-m and RACE accuracy, held-out perplexity)."
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--corpus", type=Path, default=CORPUS, help="JSON Lines, perhaps .zst")
    options.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="where runs are kept")
    options.add_argument("--only", nargs="+", default=list(GROUPS), choices=GROUPS, help="comparisons")
    options.add_argument("--minutes-per-run", type=float, default=3, help="of the reference on this machine")
    options.add_argument("--tokens", type=float, help="tokens of a run, instead of minutes")
    options.add_argument("--hours", type=float, default=24, help="start no run after that")
    options.add_argument("--seeds", type=int, default=2, help="seeds of each setting")
    options.add_argument("--epochs", type=int, default=40, help="epochs of the comparison of masking")
    options.add_argument("--size", default="small", help="named model size")
    options.add_argument("--vocab", type=int, default=8192, help="vocabulary entries")
    options.add_argument("--batch", type=int, default=16, help="sequences of the smallest batch")
    options.add_argument("--micro", type=int, default=64, help="sequences computed at a time")
    options.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    options.add_argument("--lr", type=float, default=1e-3, help="highest rate at the smallest batch")
    options.add_argument(
        "--lr-factors", type=float, nargs="+", default=[0.5, 1.0], help="rates tried for each batch size"
    )
    options.add_argument("--evaluation-sequences", type=int, default=1024, help="validation sequences")
    options.add_argument("--device", default="auto", help="cpu, cuda or auto")
    options.add_argument("--smoke", action="store_true", help="tiny, some minutes in all")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.size, chosen.vocab, chosen.batch, chosen.length = "tiny", 512, 4, 64
        chosen.tokens, chosen.seeds, chosen.epochs = chosen.tokens or 40_000, 1, 4
        chosen.lr_factors = [1.0]
        chosen.evaluation_sequences, chosen.name = 16, chosen.name or "smoke"
        chosen.work = chosen.work.with_name(chosen.work.name + "-smoke")
    chosen.work, chosen.corpus = chosen.work.resolve(), chosen.corpus.resolve()
    return chosen


def main() -> None:
    """Run all comparisons and print the table."""
    options = _options()
    result = _measure(options, time.monotonic() + 3600 * options.hours)
    about = {**result, "options": plain_options(options)}
    save(options.name or "reproduce_tables", about, _text(result, options))


if __name__ == "__main__":
    main()
