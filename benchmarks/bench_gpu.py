"""Tokens a second of pretraining on one GPU, ours against `transformers.Trainer` with its best flags.

Self-contained: ids are made up, nothing is downloaded, and it ends within the time it is given. Every
group of variants runs in a process of its own; a variant that fails or finds no time left is listed
as such. Both sides see the same batches, shapes and dropout, in bf16, with compiled layers, fused
AdamW and clipping. Ours computes the head on the masked positions alone and, for documents of
unequal length, no padding; the peer pads to the sequence length, so that it is compiled once.

    python benchmarks/bench_gpu.py                     one GPU, at most 8 minutes
    python benchmarks/bench_gpu.py --device cpu --tiny --name trial    a minute, to see that it works

The share of the matrix rate counts the arithmetic that ours needs, for both, against the best bf16
product measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import parser, save, table
from gpu_batches import NUM_BATCHES, SHARE, SIZES, Shape, make_batches, shape_of

MARK = "result "
GROUPS = (
    "limits",
    "ours large",
    "hf large",
    "ours base",
    "hf base",
    "ours documents",
    "hf documents",
    "loader",
    "ddp base",
    "fsdp2 base",
    "hf large cudnn",
)
# What torchrun sets for a single process.
ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29571",
}


def _blocks(step: Callable[[int], None], options: argparse.Namespace) -> list[float]:
    """Seconds of a step, one number for each block of steps."""
    from maskwright.training.device import wait_for_device

    for number in range(options.warmup):
        step(number)
    seconds = []
    for block in range(options.blocks):
        wait_for_device(options.device)
        started = time.perf_counter()
        for number in range(options.block):
            step(block * options.block + number)
        wait_for_device(options.device)
        seconds.append((time.perf_counter() - started) / options.block)
    return seconds


def _engine(shape: Shape, dropout: float, options: argparse.Namespace, name: str, world: Any) -> Any:
    from maskwright.model.acceleration import accelerate_model
    from maskwright.model.config import EncoderConfig
    from maskwright.model.encoder import initialize
    from maskwright.model.heads import MaskedLM
    from maskwright.parallel.config import ParallelConfig
    from maskwright.parallel.factory import EngineParts, make_engine
    from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

    config = EncoderConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.length + 2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **shape.model,
    )
    model = MaskedLM(config)
    initialize(model, 0, config.initializer_range)
    factory = optimizer_factory(OptimizerConfig())
    parts = EngineParts(
        model,
        factory,
        options.device,
        options.precision,
        1.0,
        lambda model: accelerate_model(model, compile=options.compile),
    )
    return make_engine(ParallelConfig(engine=name), parts, world)


def _objective(model: Any, batch: SimpleNamespace, *, train: bool) -> Any:
    """The summed loss of a ready batch; copies it to the device, as in training."""
    from maskwright.model.layout import Layout

    device = model.head_bias.device
    batch.keys.seed(device)
    tensors = [tensor.to(device, non_blocking=True) for tensor in batch.tensors]
    layout = Layout(batch.lengths, device)
    loss, correct = model(tensors[0], layout, *tensors[1:], batch.keys if train else None)
    return {"loss": loss}, {"correct": correct}


def _ready(shape: Shape, options: argparse.Namespace, *, documents: bool) -> list[SimpleNamespace]:
    """Batches for `_objective`, with the masked positions filled up to one size."""
    import torch

    from maskwright.model.acceleration import capacity_for, pad_targets
    from maskwright.model.dropout import DropoutKeys

    capacity = capacity_for(shape.batch * shape.length, SHARE) if options.compile else 1
    ready = []
    for number, batch in enumerate(make_batches(shape, documents=documents)):
        targets, labels = np.flatnonzero(batch.masked), batch.ids[batch.masked]
        filled = pad_targets(torch.from_numpy(targets), torch.from_numpy(labels), capacity)
        tensors = [torch.from_numpy(batch.seen), *filled]
        if options.device == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        keys = DropoutKeys(np.arange(len(batch.lengths), dtype=np.int64) + 1000 * number)
        ready.append(
            SimpleNamespace(tensors=tensors, keys=keys, lengths=batch.lengths, targets={"loss": len(targets)})
        )
    return ready


def _ours(
    size: str, options: argparse.Namespace, *, documents: bool, name: str = "single"
) -> Iterator[dict[str, Any]]:
    from maskwright.parallel.world import open_world

    shape = shape_of(size, options)
    batches = _ready(shape, options, documents=documents)
    if name != "single":
        os.environ.update(ALONE)
    with open_world(options.device, 600.0) as world:
        for dropout in (0.0, 0.1):
            yield {"dropout": dropout, **_train(shape, dropout, batches, options, name, world)}


def _train(
    shape: Shape,
    dropout: float,
    batches: list[SimpleNamespace],
    options: argparse.Namespace,
    name: str,
    world: Any,
) -> dict[str, Any]:
    """Some steps of one model, and one more step in its two parts."""
    from maskwright.training.device import wait_for_device

    engine = _engine(shape, dropout, options, name, world)

    def forward_backward(number: int) -> None:
        batch = batches[number % NUM_BATCHES]
        engine.forward_backward(_objective, batch, batch.targets, last=True)

    def step(number: int) -> None:
        forward_backward(number)
        engine.step(1e-4)

    seconds = _blocks(step, options)
    started = time.perf_counter()
    forward_backward(0)
    wait_for_device(options.device)
    update = time.perf_counter()
    engine.step(1e-4)
    wait_for_device(options.device)
    parts = {"forward_backward": update - started, "update": time.perf_counter() - update}
    return {"seconds": seconds, "parts": parts, "tokens": statistics.mean(sum(b.lengths) for b in batches)}


def _hf(size: str, options: argparse.Namespace, *, documents: bool, cudnn: bool) -> Iterator[dict[str, Any]]:
    from peer_hf_trainer import PADDING, measure_trainer, padded

    shape = shape_of(size, options)
    batches = [
        padded(batch, shape.length, mask=documents) for batch in make_batches(shape, documents=documents)
    ]
    # One number of rows, so that it is compiled once.
    rows = min(len(batch["labels"]) for batch in batches)
    batches = [{name: tensor[:rows] for name, tensor in batch.items()} for batch in batches]
    tokens = [int((batch["input_ids"] != PADDING).sum()) for batch in batches]
    model = {"vocab_size": shape.vocab, "max_position_embeddings": shape.length + 2, **shape.model}
    for dropout in (0.0,) if cudnn else (0.0, 0.1):
        seconds = measure_trainer(model, batches, options, dropout=dropout, prefer_cudnn=cudnn)
        yield {"dropout": dropout, "seconds": seconds, "tokens": statistics.mean(tokens)}


def _limits(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Matrix rates, and seconds of attention forward and backward by kernel."""
    from maskwright.training.device import measure_matrix_peak

    for precision in ("bf16", "fp16", "fp8") if options.device == "cuda" else ("bf16",):
        try:
            yield {"precision": precision, "peak": measure_matrix_peak(options.device, precision)}
        except Exception as error:
            yield {"precision": precision, "failed": str(error)[:200]}
    if options.device == "cuda":
        yield from _attention(options)


def _attention(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import torch

    from maskwright.model.fused_attention import _make, attend
    from maskwright.model.layout import Layout

    shape = shape_of("large", options)
    heads, width = shape.model["num_attention_heads"], shape.model["hidden_size"]
    for documents, kernels in ((False, ("cudnn", "dense")), (True, ("flash", "padded"))):
        layout = Layout(make_batches(shape, documents=documents)[0].lengths, "cuda")
        qkv = torch.randn(layout.num_tokens, 3 * width, device="cuda", dtype=torch.bfloat16)
        qkv.requires_grad_()
        for kernel in kernels:
            packing = _make(layout, kernel)

            def step(_: int, packing: Any = packing, qkv: Any = qkv) -> None:
                attend(qkv, packing, heads, 0.0).sum().backward()

            try:
                yield {"kernel": kernel, "seconds": statistics.median(_blocks(step, options))}
            except Exception as error:
                yield {"kernel": kernel, "failed": str(error)[:200]}


def _loader(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds to read and mask the batches of one step, on one core."""
    from bench_loader import SPECIAL, _data

    from maskwright.objectives.masking import Masker, MaskingConfig
    from maskwright.objectives.mlm import mask_batch
    from maskwright.tokens.stream import SampleStream

    for size in SIZES:
        shape = shape_of(size, options)
        with tempfile.TemporaryDirectory() as folder:
            data = _data(Path(folder), shape.vocab, 2_000_000)
            samples = SampleStream(data, shape.length, 0, 2, seed=0)
            masker = Masker(MaskingConfig(), 0, shape.vocab, shape.vocab - 1, (*SPECIAL, shape.vocab - 1))
            cpu = argparse.Namespace(**{**vars(options), "device": "cpu"})

            def load(
                step: int, samples: Any = samples, masker: Any = masker, count: int = shape.batch
            ) -> None:
                mask_batch(samples, masker, step * count, count, None)

            yield {"size": size, "seconds": statistics.median(_blocks(load, cpu))}


def _run_group(options: argparse.Namespace) -> None:
    """In a process of its own: one JSON line for each variant as soon as it is done."""
    words = options.group.split()
    documents = "documents" in words
    size = "large" if "large" in words else "base"
    results = {
        "limits": lambda: _limits(options),
        "loader": lambda: _loader(options),
        "ours": lambda: _ours(size, options, documents=documents),
        "ddp": lambda: _ours(size, options, documents=documents, name="ddp"),
        "fsdp2": lambda: _ours(size, options, documents=documents, name="fsdp2"),
        "hf": lambda: _hf(size, options, documents=documents, cudnn="cudnn" in words),
    }[words[0]]()
    for result in results:
        if options.device == "cuda":
            import torch

            result["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        print(MARK + json.dumps(result), flush=True)
        # What the variant held goes before the next one begins.
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _collect(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run the groups, one after the other, until the time is over."""
    deadline = time.monotonic() + 60 * options.minutes
    found: dict[str, list[dict[str, Any]]] = {}
    for group in options.groups:
        left = deadline - time.monotonic()
        print(f"{group}: {left:.0f} s left", file=sys.stderr)
        command = [sys.executable, __file__, "--group", group, *sys.argv[1:]]
        # The compiler's cache does not know which attention kernel was preferred.
        environment = {**os.environ, "TORCHINDUCTOR_AUTOGRAD_CACHE": "0"}
        output, failed = "", "no time left"
        if left > 10:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=environment)
                output, failed = done.stdout, done.stderr.strip()[-600:] if done.returncode else ""
            except subprocess.TimeoutExpired as error:
                raw = error.stdout or b""
                output = raw.decode() if isinstance(raw, bytes) else raw
        lines = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
        found[group] = [json.loads(line) for line in lines]
        if failed:
            found[group].append({"failed": failed})
            print(f"{group}: {failed}", file=sys.stderr)
    return found


def _flops(group: str, options: argparse.Namespace) -> float:
    """Arithmetic of one token of a group's batches, with the head on the masked positions alone."""
    from maskwright.planner.flops import model_flops_per_token

    shape = shape_of("large" if "large" in group else "base", options)
    batches = make_batches(shape, documents="documents" in group)
    lengths = np.concatenate([batch.lengths for batch in batches]).astype(float)
    return model_flops_per_token(
        vocab_size=shape.vocab,
        sequence_length=round(float((lengths**2).sum() / lengths.sum())),
        head_positions_share=SHARE,
        **shape.model,
    ).training


def _rows(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> list[list[str]]:
    peak = next((one["peak"] for one in found.get("limits", []) if "peak" in one), float("nan"))
    rows = []
    for group, results in found.items():
        for one in results if group not in ("limits", "loader") else ():
            if "failed" in one:
                rows.append([group, "-", "failed or no time left", "-", "-", "-"])
                continue
            speeds = [one["tokens"] / seconds for seconds in one["seconds"]]
            one["tokens_per_second"] = speed = statistics.median(speeds)
            one["share"] = speed * _flops(group, options) / peak
            spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
            memory = one.get("peak_memory_bytes", 0) / 1e9
            rows.append([group, f"{one['dropout']:g}", f"{speed:,.0f}", spread, f"{one['share']:.1%}"])
            rows[-1].append(f"{memory:.1f}")
    return rows


def _notes(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Ratios, limits and what the loader takes."""
    speeds = {
        (group, one["dropout"]): one["tokens_per_second"]
        for group, results in found.items()
        for one in results
        if "tokens_per_second" in one
    }
    lines = [
        f"- {group}, dropout {dropout:g}: {speed / speeds[other, dropout]:.2f} times the tokens/s of {other}"
        for (group, dropout), speed in speeds.items()
        for other in (group.replace("ours", "hf"), group.replace("ours", "hf") + " cudnn")
        if group.startswith("ours") and (other, dropout) in speeds
    ]
    lines += [
        f"- {group}, dropout {dropout:g}: {speed / speeds['ours base', dropout]:.3f} of ours base"
        for (group, dropout), speed in speeds.items()
        if group.startswith(("ddp", "fsdp2")) and ("ours base", dropout) in speeds
    ]
    for one in found.get("limits", []):
        if "peak" in one:
            lines.append(f"- matrix rate in {one['precision']}: {one['peak'] / 1e12:.1f} TFLOP/s")
        elif "kernel" in one and "seconds" in one:
            lines.append(f"- attention, {one['kernel']}: {1e3 * one['seconds']:.2f} ms, both passes")
        else:
            lines.append(f"- {one.get('precision') or one.get('kernel')}: {one['failed']}")
    for one in found.get("loader", []):
        steps = [r["seconds"] for r in found.get(f"ours {one.get('size')}", []) if "tokens" in r]
        if steps and "seconds" in one:
            share = one["seconds"] / statistics.median(steps[0])
            took = f"{1e3 * one['seconds']:.2f} ms, {share:.1%} of a step on one core"
            lines.append(f"- reading and masking, {one['size']}: {took}")
    return lines


def main() -> None:
    """Measure all groups, or one of them in a process of its own."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    options.add_argument("--tiny", action="store_true", help="a small shape, not compiled: a smoke test")
    options.add_argument("--minutes", type=float, default=8.0, help="when to stop")
    options.add_argument("--warmup", type=int, default=8, help="steps before the clock")
    options.add_argument("--block", type=int, default=5, help="steps of a block")
    options.add_argument("--blocks", type=int, default=5, help="blocks; their median is reported")
    options.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    options.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    chosen.compile = not chosen.tiny
    if chosen.group:
        _run_group(chosen)
        return
    found = _collect(chosen)
    header = ["variant", "dropout", "tokens/s", "slowest to fastest", "share of matrix rate", "peak GB"]
    text = table(header, _rows(found, chosen)) + "\n\n" + "\n".join(_notes(found))
    save(chosen.name or "gpu", {"groups": found}, text)


if __name__ == "__main__":
    main()
