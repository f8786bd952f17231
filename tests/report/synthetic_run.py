"""Files of a made-up run in the formats that the other packages write: data, pretraining, fine-tuning."""

import json
import math
import random
from pathlib import Path

PACKAGES = [
    "accelerate",
    "aiohttp",
    "awkward",
    "datasets",
    "fsspec",
    "gradio",
    "huggingface_hub",
    "ipython",
    "jax",
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "pydantic",
    "scikit_learn",
    "scipy",
    "sympy",
    "torch",
    "transformers",
    "xarray",
]
UNIGRAM_LOSS = 7.134
MASK_RATE = 0.15
TEXTS = [
    (
        "Return a new array of given shape and type, filled with <mask>.",
        " zeros",
        [" zeros", " ones", " values", " NaN", " data"],
    ),
    (
        "If True, the function raises a <mask> when the two shapes do not match.",
        " ValueError",
        [" warning", " ValueError", " TypeError", " KeyError", " RuntimeError"],
    ),
    (
        "Compute the <mask> of the matrix, ignoring the rows whose weights are below the threshold given.",
        " determinant",
        [" sum", " mean", " norm", " inverse", " number"],
    ),
    (
        "The <mask> of worker processes used to read batches; zero reads in the main process.",
        " number",
        [" number", " maximum", " size", " total", " count"],
    ),
]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_object(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make_data(folder: Path) -> Path:
    rng = random.Random(1)
    counts = [3, 11, 40, 180, 1204, 4310, 8702, 9120, 6011, 3204, 1501, 640, 210, 61, 14, 2]
    write_object(
        folder / "audit.json",
        {
            "documents_read": 48211,
            "documents_kept": sum(counts),
            "bytes_read": 61_200_000,
            "bytes_kept": 44_810_000,
            "drops": {
                "exact_duplicate": 7214,
                "too_short": 4120,
                "mostly_code": 1203,
                "repeated_lines": 381,
                "not_english": 80,
            },
            "drop_samples": {
                "too_short": ["TODO", "See above.", "<script>alert('drop')</script>"],
                "mostly_code": [
                    ">>> a = np.arange(6).reshape((3, 2))\n>>> a\narray([[0, 1],\n       [2, 3]])" * 6
                ],
            },
            "sources": {
                name: {"documents": rng.randint(200, 6000), "bytes": rng.randint(10**5, 10**7)}
                for name in PACKAGES
            },
            "length_histogram": {"edges": [2.0**power for power in range(4, 21)], "counts": counts},
            "longest_document_characters": 812_345,
            "bytes_per_token": 4.183,
        },
    )
    write_object(
        folder / "manifest.json",
        {
            "format_version": 1,
            "tokenizer": {"vocab_size": 8192, "fingerprint": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"},
            "splits": {
                "train": {"num_tokens": 10_170_112, "num_documents": 33_452, "shards": [{}, {}, {}]},
                "validation": {"num_tokens": 541_003, "num_documents": 1_761, "shards": [{}]},
            },
            "fingerprint": "8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        },
    )
    return folder


def pretraining_rows(steps: int = 3000, every: int = 2) -> list[dict]:
    rng = random.Random(2)
    rows: list[dict] = []
    for step in range(every, steps + 1, every):
        level = 2.9 + 6.2 * math.exp(-step / 160) + 2.0 * math.exp(-step / 1500)
        loss = level + rng.gauss(0, 0.12)
        warm = min(1.0, step / 200) * max(0.0, 1 - step / (steps * 1.02))
        speed = 14200 + rng.gauss(0, 350) - (4000 if 1400 < step < 1450 else 0)
        rows.append(
            {
                "kind": "train",
                "step": step,
                "loss": loss,
                "accuracy": max(0.0, 0.62 - loss * 0.064 + rng.gauss(0, 0.008)),
                "lr": 6e-4 * warm,
                "grad_norm": math.exp(1.6 * math.exp(-step / 90) + rng.gauss(-0.3, 0.25))
                + (step == 1200) * 40,
                "mask_rate": MASK_RATE + rng.gauss(0, 0.0022),
                "tokens_per_second": speed,
                "real_tokens_per_second": speed * 0.96,
                "peak_share": speed / 14200 * 0.418,
                "data_wait_share": abs(rng.gauss(0.004, 0.002)),
                "seconds": step * 0.14,
                "tokens_seen": step * 2048,
                "memory_bytes": 1.31e9 + step * 2000,
            }
        )
        if step % 200 == 0:
            value = level + 0.07 + rng.gauss(0, 0.015)
            rows.append(
                {
                    "kind": "evaluation",
                    "step": step,
                    "loss": value,
                    "accuracy": 0.62 - value * 0.065,
                    "perplexity": math.exp(value),
                }
            )
    rows.append({"kind": "event", "step": 1200, "message": "step skipped: the gradient norm was not finite"})
    rows.append({"kind": "event", "step": 1900, "message": "interrupted by SIGINT; checkpoint written"})
    rows.append({"kind": "event", "step": 1900, "message": "resumed from checkpoints/step-00001900"})
    return rows


def make_pretraining(folder: Path, steps: int = 3000) -> Path:
    write_lines(folder / "metrics.jsonl", pretraining_rows(steps))
    (folder / "config.yaml").write_text(
        "format_version: 1\nmodel:\n  size: tiny\n  hidden_size: 128 # of each layer\n"
        "objective:\n  mlm_probability: 0.15\noptimizer:\n  lr: 0.0006\n  betas:\n  - 0.9\n  - 0.98\n"
        "data:\n  name: '<b>bold</b> & co'\n"
    )
    samples = [
        {
            "text": text.replace("<mask>", answer.strip()),
            "position_text": text,
            "answer": answer,
            "predictions": [
                {"token": token, "probability": 0.48 / (rank + 1) ** 1.3} for rank, token in enumerate(tokens)
            ],
        }
        for text, answer, tokens in TEXTS
    ]
    write_object(
        folder / "summary.json",
        {
            "steps": steps,
            "validation_loss": 3.214,
            "validation_accuracy": 0.411,
            "unigram_loss": UNIGRAM_LOSS,
            "mask_rate_target": MASK_RATE,
            "mask_rate_interval": [0.1457, 0.1544],
            "num_parameters": 4_382_720,
            "tokens_per_second": 14180.0,
            "matrix_peak_flops": 2.16e11,
            "peak_share": 0.418,
            "seconds": 431.2,
            "precision": "bf16",
            "machine": {"cpu": "Example CPU @ 2.4 GHz", "cores": 2, "memory_bytes": 8 * 2**30, "gpus": []},
            "versions": {"maskwright": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "numpy": "2.3.1"},
            "samples": samples,
        },
    )
    return folder


def make_evaluation(accuracy: float, labels: list[str], seed: int, per_label: int = 60) -> dict:
    rng = random.Random(seed)
    count = len(labels)
    confusion = [[0] * count for _ in labels]
    for true in range(count):
        ease = min(0.99, max(0.05, accuracy + rng.uniform(-0.15, 0.12)))
        for _ in range(per_label):
            guess = true if rng.random() < ease else int(abs(rng.gauss(true, 4))) % count
            confusion[true][guess] += 1
    per_class = []
    for index, label in enumerate(labels):
        right, support = confusion[index][index], sum(confusion[index])
        predicted = sum(row[index] for row in confusion)
        precision, recall = right / max(1, predicted), right / max(1, support)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        per_class.append(
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support}
        )
    total = count * per_label
    measured = sum(confusion[index][index] for index in range(count)) / total

    def around(value: float) -> dict:
        half = 1.96 * math.sqrt(value * (1 - value) / total)
        return {"value": value, "low": value - half, "high": value + half}

    means = {key: sum(entry[key] for entry in per_class) / count for key in ("precision", "recall", "f1")}
    return {
        "task": "classification",
        "split": "test",
        "labels": labels,
        "count": total,
        "accuracy": around(measured),
        "macro_precision": around(means["precision"]),
        "macro_recall": around(means["recall"]),
        "macro_f1": around(means["f1"]),
        "per_class": per_class,
        "confusion": confusion,
        "confidence": 0.95,
        "majority_accuracy": 1 / count,
    }


def make_finetuning(folder: Path, accuracy: float, seed: int, labels: list[str] = PACKAGES) -> Path:
    rng = random.Random(seed)
    rows: list[dict] = []
    for step in range(5, 601, 5):
        share = 1 - math.exp(-step / 180)
        rows.append(
            {
                "kind": "train",
                "step": step,
                "loss": 3.0 - 2.6 * accuracy * share + rng.gauss(0, 0.1),
                "lr": 1e-4,
            }
        )
        if step % 60 == 0:
            rows.append(
                {
                    "kind": "evaluation",
                    "step": step,
                    "loss": 3.0 - 2.3 * accuracy * share,
                    "accuracy": accuracy * share + rng.gauss(0, 0.01),
                }
            )
    write_lines(folder / "metrics.jsonl", rows)
    (folder / "config.yaml").write_text("task: classification\noptimizer:\n  lr: 0.0001\n")
    write_object(folder / "evaluation.json", make_evaluation(accuracy, labels, seed))
    return folder


def make_run(root: Path) -> dict:
    """Write a whole run and return the arguments of `build_report` for it."""
    return {
        "data": make_data(root / "data"),
        "pretrain": make_pretraining(root / "pretrain"),
        "finetune": [
            ("pretrained encoder", make_finetuning(root / "finetune", 0.78, 3)),
            ("random weights", make_finetuning(root / "baseline", 0.41, 4)),
        ],
        "command": "maskwright demo --output runs/demo optimizer.lr=6e-4",
    }
