"""A tiny world for tests: generated English, and settings that train on it in seconds.

The texts come from a small grammar with a vocabulary for each topic, so a language model can learn
something from them and a classifier can tell the topics apart. Everything is the same in every run.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

TOPICS = {
    "garden": (
        ["gardener", "rose", "hedge", "seed", "spade", "beetle", "apple tree", "watering can"],
        ["waters", "plants", "trims", "digs up", "covers", "feeds"],
        ["green", "thorny", "ripe", "muddy", "early"],
    ),
    "harbour": (
        ["captain", "ferry", "anchor", "gull", "lighthouse", "net", "sailor", "crane"],
        ["loads", "steers", "follows", "repairs", "paints", "lifts"],
        ["salty", "rusty", "grey", "heavy", "late"],
    ),
    "kitchen": (
        ["cook", "kettle", "onion", "oven", "recipe", "knife", "guest", "loaf of bread"],
        ["stirs", "slices", "boils", "tastes", "bakes", "warms"],
        ["hot", "sweet", "bitter", "golden", "fresh"],
    ),
}
PLACES = [
    "in the morning",
    "behind the house",
    "before it rains",
    "on the third of May",
    "with great care",
    "",
]
ENDINGS = [".", ".", ".", ".", "!", "; nobody knows why."]

PREPARE: dict[str, Any] = {
    "tokenizer": {"vocab_size": 400},
    "validation_share": 0.1,
    "tokens_per_shard": 4000,
}
PRETRAIN: dict[str, Any] = {
    "model": {
        "size": "tiny",
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
    },
    "sequence_length": 32,
    "batch": {"sequences": 8, "micro_sequences": 4},
    "steps": 24,
    "optimizer": {"lr": 3e-3},
    "precision": "fp32",
    "device": "cpu",
    "evaluation": {"every_steps": 8, "sequences": 16},
    "checkpoint": {"every_steps": 8},
    "log_every_steps": 4,
}
FINETUNE: dict[str, Any] = {
    "max_length": 32,
    "epochs": 3,
    "batch_size": 16,
    "optimizer": {"lr": 3e-3},
    "precision": "fp32",
    "device": "cpu",
}


def sentence(chance: random.Random, topic: str) -> str:
    nouns, verbs, adjectives = TOPICS[topic]
    first, second = chance.choice(nouns), chance.choice(nouns)
    words = [
        "The",
        chance.choice(adjectives),
        first,
        chance.choice(verbs),
        "the",
        second,
        chance.choice(PLACES),
    ]
    return " ".join(word for word in words if word) + chance.choice(ENDINGS)


def text(chance: random.Random, topic: str, sentences: int) -> str:
    return " ".join(sentence(chance, topic) for _ in range(sentences))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_corpus(path: Path, documents: int = 240, seed: int = 0) -> Path:
    """Documents of two to nine sentences as JSON Lines, with some that are not English at all."""
    chance = random.Random(seed)
    names = sorted(TOPICS)
    rows = [{"text": text(chance, names[i % 3], 2 + chance.randrange(8))} for i in range(documents)]
    rows[7]["text"] += " <mask> and </s> are words here. naïve café, 中文 👩‍👩‍👧"
    return write_rows(path, rows)


def write_labelled(folder: Path, train: int = 90, other: int = 30) -> dict[str, str]:
    """Labelled texts of three topics: paths by split."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, names = random.Random(5), sorted(TOPICS)
    paths = {}
    for split, count in (("train", train), ("validation", other), ("test", other)):
        rows = [{"text": text(chance, names[i % 3], 1), "label": names[i % 3]} for i in range(count)]
        paths[split] = str(write_rows(folder / f"{split}.jsonl", rows))
    return paths


def prepare_values(corpus: Path) -> dict[str, Any]:
    return {**PREPARE, "corpus": {"sources": [{"path": str(corpus)}]}}


def files_of(folder: Path, *left_out: str) -> dict[str, bytes]:
    """Content of every file below a folder by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def prepared_files(folder: Path) -> dict[str, bytes]:
    """The files of a data folder that are the same whenever and by whomever it was made."""
    return files_of(folder, "timings.json", "data_report.html")
