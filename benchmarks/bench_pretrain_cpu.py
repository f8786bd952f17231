"""Tokens a second and peak memory of one pretraining step, ours against `transformers`.

Every variant runs in a process of its own, on the same random ids, shape, batch and masked
positions; the variants take turns, so a drift of the machine meets all of them. The peer is
RobertaForMaskedLM with fused AdamW and clipping, as Trainer runs it: fp32 with its defaults; bf16
autocast with its defaults; bf16 autocast, compiled, without dropout. As a check on ourselves the
peer also runs with the memory allocator settings that we use. One of our variants computes the inner
values of the feed-forward blocks again in the backward pass (activation_checkpointing=feed-forward).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from common import parser, save, table

MLM_SHARE = 0.15
PEERS = {
    "hf fp32": {"precision": "fp32", "dropout": 0.1},
    "hf bf16": {"precision": "bf16", "dropout": 0.1},
    "hf bf16 compile no-dropout": {"precision": "bf16", "dropout": 0.0, "compile": True},
    "hf bf16 compile no-dropout allocator": {
        "precision": "bf16",
        "dropout": 0.0,
        "compile": True,
        "allocator": True,
    },
    "hf bf16 allocator": {"precision": "bf16", "dropout": 0.1, "allocator": True},
}
OURS = {
    "ours fp32": {"precision": "fp32", "dropout": 0.1},
    "ours bf16": {"precision": "bf16", "dropout": 0.1},
    "ours bf16 no-dropout": {"precision": "bf16", "dropout": 0.0},
    "ours bf16 no-dropout recompute": {"precision": "bf16", "dropout": 0.0, "recompute": True},
}


def _batch(options: argparse.Namespace) -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    size, length = options.batch, options.length
    ids = torch.randint(5, options.vocab - 1, (size, length), generator=generator)
    masked = torch.rand((size, length), generator=generator) < MLM_SHARE
    seen = torch.where(masked, options.vocab - 1, ids)
    return seen, ids, masked


def _ours(options: argparse.Namespace, variant: dict[str, Any]) -> Callable[[], None]:
    import numpy as np
    import torch

    from maskwright.model.config import MODEL_SIZES, EncoderConfig
    from maskwright.model.dropout import DropoutKeys
    from maskwright.model.encoder import initialize
    from maskwright.model.heads import MaskedLM
    from maskwright.objectives.mlm import MaskedBatch, masked_lm_loss
    from maskwright.parallel.single import SingleEngine
    from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

    config = EncoderConfig(
        vocab_size=options.vocab,
        max_position_embeddings=options.length + 2,
        hidden_dropout_prob=variant["dropout"],
        attention_probs_dropout_prob=variant["dropout"],
        **MODEL_SIZES[options.size],
    )
    model = MaskedLM(config)
    initialize(model, 0, config.initializer_range)
    for layer in model.encoder.layers:
        layer.recompute_feed_forward = bool(variant.get("recompute"))
    engine = SingleEngine(model, optimizer_factory(OptimizerConfig()), "cpu", variant["precision"], 1.0)
    seen, ids, masked = _batch(options)
    flat = masked.reshape(-1)
    batch = MaskedBatch(
        ids_N=seen.reshape(-1),
        lengths=(options.length,) * options.batch,
        targets_M=flat.nonzero()[:, 0],
        labels_M=ids[masked],
        counts={},
        samples=tuple(range(options.batch)),
        dropout=DropoutKeys(np.arange(options.batch)),
    )
    assert torch.equal(batch.ids_N[batch.targets_M], torch.full_like(batch.labels_M, options.vocab - 1))

    def step() -> None:
        engine.forward_backward(masked_lm_loss, batch, batch.targets)
        engine.step(1e-4)

    return step


def _peer(options: argparse.Namespace, variant: dict[str, Any]) -> Callable[[], None]:
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM

    from maskwright.core.allocator import keep_large_buffers
    from maskwright.model.config import MODEL_SIZES

    config = RobertaConfig(
        vocab_size=options.vocab,
        max_position_embeddings=options.length + 2,
        type_vocab_size=1,
        hidden_dropout_prob=variant["dropout"],
        attention_probs_dropout_prob=variant["dropout"],
        **MODEL_SIZES[options.size],
    )
    model = RobertaForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)
    if variant.get("allocator"):
        keep_large_buffers()
    run = torch.compile(model) if variant.get("compile") else model
    seen, ids, masked = _batch(options)
    labels = torch.where(masked, ids, -100)
    attention = torch.ones_like(seen)
    enabled = variant["precision"] == "bf16"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = run(input_ids=seen, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _run_variant(options: argparse.Namespace) -> None:
    """In a process of its own: warm up, time some steps, print what was seen."""
    name = options.variant
    step = _ours(options, OURS[name]) if name in OURS else _peer(options, PEERS[name])
    for _ in range(options.warmup):
        step()
    seconds = []
    for _ in range(options.steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    from maskwright.core.machine import peak_memory_bytes

    print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}))


def _measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "peaks": []} for name in options.variants}
    for number in range(options.rounds):
        for name in options.variants:
            shape = [
                f"--{key}={getattr(options, key)}" for key in ("size", "batch", "length", "vocab", "warmup")
            ]
            command = [sys.executable, __file__, "--variant", name, f"--steps={options.steps}", *shape]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            result = json.loads(output.splitlines()[-1])
            found[name]["seconds"] += result["seconds"]
            found[name]["peaks"].append(result["peak_memory_bytes"])
            median = statistics.median(result["seconds"])
            print(f"round {number + 1}: {name}: {median:.2f} s a step", file=sys.stderr)
    tokens = options.batch * options.length
    for values in found.values():
        values["tokens_per_second"] = tokens / statistics.median(values["seconds"])
        values["slowest"] = tokens / max(values["seconds"])
        values["fastest"] = tokens / min(values["seconds"])
        values["peak_memory_bytes"] = max(values["peaks"])
    return found


def _limit(options: argparse.Namespace) -> tuple[float, float]:
    """Measured matrix rate in bf16, and the arithmetic of one token."""
    from maskwright.model.config import MODEL_SIZES
    from maskwright.planner.flops import model_flops_per_token
    from maskwright.training.device import measure_matrix_peak

    flops = model_flops_per_token(
        vocab_size=options.vocab,
        sequence_length=options.length,
        head_positions_share=MLM_SHARE,
        **MODEL_SIZES[options.size],
    )
    return measure_matrix_peak("cpu", "bf16"), flops.training


def _report(options: argparse.Namespace) -> None:
    peak, flops = _limit(options)
    found = _measure(options)
    limit = peak / flops
    rows = [
        [
            name,
            f"{values['tokens_per_second']:,.0f}",
            f"{values['slowest']:,.0f} to {values['fastest']:,.0f}",
            f"{values['tokens_per_second'] / limit:.0%}",
            f"{values['peak_memory_bytes'] / 1e9:.2f}",
        ]
        for name, values in found.items()
    ]
    text = table(["variant", "tokens/s", "slowest to fastest", "share of matrix rate", "peak GB"], rows)
    text += "\n\n" + "\n".join(_ratios(found))
    text += (
        f"\n\nmatrix rate in bf16, measured in this run: {peak / 1e12:.2f} TFLOP/s, "
        f"so at most {limit:,.0f} tokens/s"
        f"\n{options.size}, batch {options.batch} x {options.length}, vocabulary {options.vocab:,}, "
        f"{options.rounds} rounds of {options.steps} steps after {options.warmup}"
    )
    name = options.name or f"pretrain_cpu_{options.size}_{options.batch}x{options.length}_{options.vocab}"
    save(name, {"variants": found, "matrix_peak_flops": peak, "flops_per_token": flops}, text)


def _ratios(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    peers = [name for name in found if name.startswith("hf") and "allocator" not in name]
    pairs = [("ours bf16 no-dropout", peer) for peer in peers if "no-dropout" in peer]
    pairs += [("ours bf16 no-dropout recompute", peer) for peer in peers if "no-dropout" in peer]
    pairs += [("ours bf16", peer) for peer in found if peer in ("hf bf16", "hf fp32", "hf bf16 allocator")]
    pairs += [("ours bf16 no-dropout", peer) for peer in found if peer.endswith("no-dropout allocator")]
    for ours, peer in pairs:
        if ours in found:
            speed = found[ours]["tokens_per_second"] / found[peer]["tokens_per_second"]
            memory = found[ours]["peak_memory_bytes"] / found[peer]["peak_memory_bytes"]
            lines.append(
                f"- {ours} / {peer}: {speed:.2f} times the tokens/s, {memory:.2f} of the peak memory"
            )
    return lines


def main() -> None:
    """Measure all variants, or one of them in a process of its own."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--size", default="base", help="named model size")
    options.add_argument("--batch", type=int, default=8, help="sequences of a step")
    options.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    options.add_argument("--vocab", type=int, default=50_265, help="vocabulary entries")
    options.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    options.add_argument("--warmup", type=int, default=2, help="steps before that")
    options.add_argument("--rounds", type=int, default=2, help="how often all variants take a turn")
    options.add_argument("--variants", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    options.add_argument("--variant", choices=[*PEERS, *OURS], help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.variant:
        _run_variant(chosen)
    else:
        _report(chosen)


if __name__ == "__main__":
    main()
