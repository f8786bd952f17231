"""Raw text to token shards against `datasets.map` as `run_mlm` uses it, and what bounds each stage.

Ours runs as a user runs it, from the command line; the peer in a process of its own, on a part of the
same files (its rate does not depend on how many there are), with the same vocabulary and number of
processes. Needs the data in shared/data.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
import zstandard
from common import parser, save, table
from prepare_input import CORPORA, SHARED, make_input, raw_bytes

from maskwright.corpus.normalise import normalise_text
from maskwright.tokens.tokenizer import Tokenizer

HERE = Path(__file__).parent
MEGA = 1e6


def ours(folder: Path, files: list[Path], workers: int, **deduplication: Any) -> dict[str, Any]:
    """Prepare with the command; wall clock, rates, and the peak memory of the largest process."""
    shutil.rmtree(folder, ignore_errors=True)
    sources = [
        {"name": name, "path": [str(file) for file in files if file.name.startswith(name)]}
        for name in CORPORA
        if any(file.name.startswith(name) for file in files)
    ]
    corpus = {"sources": sources, "deduplication": deduplication}
    recipe = {"prepare": {"corpus": corpus, "tokenizer": {"path": str(SHARED / "roberta_vocab")}}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "maskwright", "prepare", str(path), "-o", str(folder), "--json"]
    command += ["--workers", str(workers)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    tokens = result["train_tokens"] + result["validation_tokens"]
    raw = raw_bytes(files)
    shards = sum(
        file.stat().st_size for split in ("train", "validation") for file in (folder / split).iterdir()
    )
    return {
        "seconds": seconds,
        "tokens": tokens,
        "documents": result["documents_kept"],
        "tokens_per_second": tokens / seconds,
        "raw_megabytes_per_second": raw / MEGA / seconds,
        "raw_megabytes_per_second_and_core": raw / MEGA / seconds / workers,
        "bytes_per_token_on_disk": shards / tokens,
        "folder_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "stages": json.loads((folder / "timings.json").read_text())["stages"],
    }


def peer(folder: Path, files: list[Path], processes: int) -> dict[str, Any]:
    """Run the peer in its own process, with an empty cache."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = folder / "tokenizer"
    Tokenizer.load(SHARED / "roberta_vocab").save(tokenizer)
    command = [sys.executable, str(HERE / "peer_datasets_map.py"), "--tokenizer", str(tokenizer)]
    command += ["--cache", str(folder / "cache"), "--processes", str(processes), "--files", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    raw = raw_bytes(files)
    result["tokens_per_second"] = result["tokens"] / result["seconds"]
    result["raw_megabytes_per_second"] = raw / MEGA / result["seconds"]
    return result


def limits(file: Path) -> dict[str, float]:
    """Rates of the parts that nobody can avoid, one thread, MB/s of JSON Lines, on one file."""
    packed = file.read_bytes()
    raw = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
    texts = [json.loads(line)["text"] for line in raw.splitlines()]
    os.environ["RAYON_NUM_THREADS"] = "1"
    tokenizer = Tokenizer.load(SHARED / "roberta_vocab")
    tokenizer.encode_batch(texts[:10])
    actions = {
        "decompress": lambda: (
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
        ),
        "parse": lambda: [json.loads(line) for line in raw.splitlines()],
        "normalise": lambda: [normalise_text(text) for text in texts],
        "digest": lambda: [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts],
        "compress": lambda: zstandard.ZstdCompressor(level=1).compress(raw),
        "encode": lambda: tokenizer.encode_batch(texts),
        "checksum": lambda: hashlib.sha256(raw[: len(raw) // 2]).digest(),
    }
    found = {}
    for name, action in actions.items():
        started = time.perf_counter()
        action()
        found[name] = len(raw) / MEGA / (time.perf_counter() - started)
    return found


def peak_child_bytes() -> int:
    """Peak resident memory of the largest child process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--gigabytes", type=float, default=1.0, help="raw text for ours")
    arguments.add_argument("--peer-megabytes", type=float, default=190.0, help="raw text for the peer")
    arguments.add_argument(
        "--corpora", nargs="+", default=list(CORPORA), help="names below shared/data/corpora"
    )
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--folder", type=Path, help="where to work; kept if given")
    arguments.add_argument("--no-peer", action="store_true", help="leave the peer out")
    arguments.add_argument("--no-near", action="store_true", help="leave near-deduplication out")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        files = make_input(folder / "input", int(options.gigabytes * 1e9), tuple(options.corpora))
        result: dict[str, Any] = {"raw_bytes": raw_bytes(files), "workers": options.workers}
        result["corpora"] = options.corpora
        result["limits"] = limits(files[0])
        result["ours"] = ours(folder / "ours", files, options.workers)
        result["peak_bytes"] = peak_child_bytes()
        if not options.no_near:
            result["near"] = ours(folder / "near", files, options.workers, near={})
            result["near_peak_bytes"] = peak_child_bytes()
        if not options.no_peer:
            result["peer"] = peer(
                folder / "peer", _some(files, options.peer_megabytes * MEGA), options.workers
            )
    save(options.name or "prepare", result, _text(result))


def _some(files: list[Path], num_bytes: float) -> list[Path]:
    """The first files, which are one copy of each corpus after the other, until there is enough."""
    chosen: list[Path] = []
    for file in files:
        if chosen and raw_bytes(chosen) >= num_bytes:
            break
        chosen.append(file)
    return chosen


def _text(result: dict[str, Any]) -> str:
    rows = []
    for name, label in (
        ("ours", "maskwright"),
        ("near", "maskwright, near-duplicates too"),
        ("peer", "datasets.map"),
    ):
        if name in result:
            found = result[name]
            rows.append(
                [
                    label,
                    f"{found['seconds']:.1f}",
                    f"{found['tokens_per_second']:,.0f}",
                    f"{found['raw_megabytes_per_second']:.2f}",
                    f"{found['raw_megabytes_per_second'] / result['workers']:.2f}",
                ]
            )
    text = table(["", "seconds", "tokens/s", "MB/s", "MB/s and core"], rows)
    if "peer" in result:
        ratio = result["ours"]["tokens_per_second"] / result["peer"]["tokens_per_second"]
        text += f"\n\nRatio of tokens/s to the peer: {ratio:.1f}"
    text += f"\n\nText of {', '.join(result['corpora'])}, repeated: {result['raw_bytes'] / 1e9:.2f} GB "
    text += "of JSON Lines, compressed; "
    text += f"{result['workers']} workers. "
    text += f"Peak memory of a process: {result['peak_bytes'] / MEGA:.0f} MB. "
    text += f"Shards: {result['ours']['bytes_per_token_on_disk']:.3f} bytes a token."
    for name in ("ours", "near"):
        if name in result:
            stages = [
                [stage["name"], str(stage["tasks"]), f"{stage['seconds']:.1f}", f"{_rate(stage):.1f}"]
                for stage in result[name]["stages"]
                if stage["seconds"] > 0.05
            ]
            text += f"\n\nStages of {name}:\n\n" + table(["stage", "tasks", "seconds", "MB/s"], stages)
    limits = [[name, f"{rate:.0f}"] for name, rate in result["limits"].items()]
    return text + "\n\nWhat the parts allow, one thread:\n\n" + table(["part", "MB/s"], limits)


def _rate(stage: dict[str, Any]) -> float:
    return float(stage["bytes"] / MEGA / stage["seconds"])


if __name__ == "__main__":
    main()
