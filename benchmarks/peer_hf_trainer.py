"""The peer of `bench_gpu.py`: `transformers.Trainer` with the flags that make it fastest.

The Trainer gets batches that are ready: masked, laid together, of one shape. What it would spend on
reading, padding and masking is left out, to its advantage.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset
from transformers import RobertaConfig, RobertaForMaskedLM, Trainer, TrainerCallback, TrainingArguments

__all__ = ["PADDING", "measure_trainer", "padded"]

PADDING, IGNORED = 1, -100


def padded(batch: Any, length: int, *, mask: bool) -> dict[str, torch.Tensor]:
    """A batch of `bench_gpu.py` side by side.

    Args:
        batch: sequences end to end.
        length: tokens of a row.
        mask: whether to add a mask; without one all rows must be full.
    """
    lengths = torch.tensor(batch.lengths)
    real = torch.arange(length) < lengths[:, None]
    tensors = {"input_ids": torch.full(real.shape, PADDING), "labels": torch.full(real.shape, IGNORED)}
    labels = torch.from_numpy(batch.ids).where(torch.from_numpy(batch.masked), IGNORED)
    tensors["input_ids"][real], tensors["labels"][real] = torch.from_numpy(batch.seen), labels
    return {**tensors, "attention_mask": real.long()} if mask else tensors


class _Batches(Dataset[dict[str, torch.Tensor]]):
    """Ready batches, over and over."""

    def __init__(self, batches: list[dict[str, torch.Tensor]], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.batches[number % len(self.batches)]


class _Clock(TrainerCallback):
    """Time at the ends of blocks of steps, when the device has finished them."""

    def __init__(self, warmup: int, block: int, device: str) -> None:
        self.warmup, self.block, self.device = warmup, block, device
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done = state.global_step - self.warmup
        if done >= 0 and done % self.block == 0:
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def _arguments(folder: str, device: str, precision: str, steps: int, *, compiled: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=1,
        bf16=precision == "bf16",
        tf32=True if device == "cuda" else None,
        optim="adamw_torch_fused",
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        weight_decay=0.01,
        max_grad_norm=1.0,
        learning_rate=1e-4,
        torch_compile=compiled,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=1,
    )


@contextlib.contextmanager
def _kernel(prefer_cudnn: bool) -> Iterator[None]:
    if not prefer_cudnn:
        yield
        return
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield


def measure_trainer(
    shape: dict[str, Any],
    batches: list[dict[str, torch.Tensor]],
    options: Any,
    *,
    dropout: float,
    prefer_cudnn: bool = False,
) -> list[float]:
    """Train for some steps.

    Args:
        shape: of the model, in the words of `RobertaConfig`.
        batches: `input_ids`, `labels` with -100, and `attention_mask` where there is padding.
        options: of `bench_gpu.py`: `device`, `precision`, `warmup`, `block`, `blocks`, `compile`.
        dropout: share of values to drop, everywhere.
        prefer_cudnn: let attention take cuDNN's kernel, which no flag of the Trainer does.

    Returns:
        Seconds of a step, one number for each block.
    """
    config = RobertaConfig(
        type_vocab_size=1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
        **shape,
    )
    steps = options.warmup + options.block * options.blocks
    clock = _Clock(options.warmup, options.block, options.device)
    with tempfile.TemporaryDirectory() as folder, _kernel(prefer_cudnn):
        Trainer(
            model=RobertaForMaskedLM(config),
            args=_arguments(folder, options.device, options.precision, steps, compiled=options.compile),
            train_dataset=_Batches(batches, steps),
            data_collator=lambda rows: rows[0],
            callbacks=[clock],
        ).train()
    return [(end - start) / options.block for start, end in zip(clock.times, clock.times[1:], strict=False)]
