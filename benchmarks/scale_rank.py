"""One process of `bench_scale.py`: steps of an engine on made-up batches, alone or with others.

Started with the variables of torchrun. Rank 0 prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _model(config: Any, engine: str) -> tuple[Any, Any]:
    """A model with its first weights; for fsdp2, as in runs, one without memory, and their source."""
    import torch

    from maskwright.model.encoder import initial_weights, initialize
    from maskwright.model.heads import MaskedLM

    if engine == "fsdp2":
        with torch.device("meta"):
            model, kept = MaskedLM(config), MaskedLM(config)
        return model, lambda: initial_weights(kept, 0, config.initializer_range)
    model = MaskedLM(config)
    initialize(model, 0, config.initializer_range)
    return model, None


def _parts(options: argparse.Namespace) -> tuple[Any, Any]:
    """The parts of an engine, and a micro-batch that is the same on every rank."""
    import numpy as np
    import torch

    from maskwright.model.config import MODEL_SIZES, EncoderConfig
    from maskwright.model.dropout import DropoutKeys
    from maskwright.objectives.mlm import MaskedBatch
    from maskwright.parallel.factory import EngineParts
    from maskwright.training.optimizers import OptimizerConfig, optimizer_factory

    config = EncoderConfig(
        vocab_size=options.vocab,
        max_position_embeddings=options.length + 2,
        **MODEL_SIZES[options.size],
    )
    model, first_weights = _model(config, options.engine)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, options.vocab - 1, (options.micro * options.length,), generator=generator)
    masked = torch.rand(len(ids), generator=generator) < 0.15
    batch = MaskedBatch(
        ids_N=torch.where(masked, options.vocab - 1, ids),
        lengths=(options.length,) * options.micro,
        targets_M=masked.nonzero()[:, 0],
        labels_M=ids[masked],
        counts={},
        samples=tuple(range(options.micro)),
        dropout=DropoutKeys(np.arange(options.micro)),
    )
    factory = optimizer_factory(OptimizerConfig())
    return EngineParts(model, factory, "cpu", options.precision, 1.0, first_weights=first_weights), batch


def _stepper(options: argparse.Namespace, engine: Any, batch: Any) -> Callable[[], float]:
    from maskwright.objectives.mlm import masked_lm_loss

    totals = {"loss": batch.num_targets * options.micro_batches * engine.world.data_size}

    def step() -> float:
        engine.world.wait()
        started = time.perf_counter()
        for number in range(options.micro_batches):
            last = number == options.micro_batches - 1
            engine.forward_backward(masked_lm_loss, batch, totals, last=last)
        engine.step(1e-4)
        return time.perf_counter() - started

    return step


def _saving(options: argparse.Namespace, engine: Any, step: Callable[[], float]) -> dict[str, Any]:
    """How long a save holds the run up, and what it slows down while it writes."""
    from maskwright.training.checkpoint_config import CheckpointConfig
    from maskwright.training.checkpoints import Checkpoints

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        checkpoints = Checkpoints(Path(name), CheckpointConfig(), {}, engine.world)
        found: dict[str, Any] = {"stall": [], "steps_while_writing": []}
        for number in range(3):
            started = time.perf_counter()
            checkpoints.save(number + 1, engine.state(), {})
            found["stall"].append(time.perf_counter() - started)
            found["steps_while_writing"].append([step() for _ in range(options.steps)])
            started = time.perf_counter()
            problems = checkpoints.finish()
            found["waited_after_steps"] = time.perf_counter() - started
            assert not problems, problems
        files = [path for path in checkpoints.path(3).rglob("*") if path.is_file()]
        found["bytes"] = sum(path.stat().st_size for path in files)
        checkpoints.close()
    state = engine.state()
    tensors = [*state["model"].values(), *(t for one in state["optimizer"].values() for t in one.values())]
    found["state_bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return found


def main() -> None:
    """Run some steps and say what was seen."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--engine", required=True)
    arguments.add_argument("--tensor", type=int, default=1)
    for name in ("size", "precision", "folder"):
        arguments.add_argument(f"--{name}", required=True)
    for name in ("micro", "micro-batches", "length", "vocab", "steps", "warmup", "threads"):
        arguments.add_argument(f"--{name}", type=int, required=True)
    arguments.add_argument("--saving", action="store_true")
    options = arguments.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    from maskwright.core.machine import peak_memory_bytes
    from maskwright.parallel.config import ParallelConfig
    from maskwright.parallel.factory import make_engine
    from maskwright.parallel.world import open_world

    with open_world("cpu", 600.0) as processes:
        world = processes.share_layers(options.tensor)
        parts, batch = _parts(options)
        config = ParallelConfig(engine=options.engine, tensor=options.tensor)
        engine = make_engine(config, parts, world)
        step = _stepper(options, engine, batch)
        for _ in range(options.warmup):
            step()
        seconds = [step() for _ in range(options.steps)]
        result = {
            "seconds": seconds,
            "tokens_per_step": batch.num_tokens * options.micro_batches * world.data_size,
            "peak_memory_bytes": world.gather(peak_memory_bytes()),
        }
        if options.saving:
            result |= _saving(options, engine, step)
        if world.is_main:
            print(json.dumps(result))


if __name__ == "__main__":
    main()
