"""The peer of `bench_time_to_loss.py`: `transformers.Trainer` on the windows that ours trains on.

It gets what it would have after the best preparation: all windows in order in one memory-mapped array,
with `special_tokens_mask` ready, no padding and therefore no attention mask. Masking is
DataCollatorForLanguageModeling's. Its validation loss is measured on our validation batches, with the
masks in them, on a clock that stands still meanwhile.

    python benchmarks/peer_trainer_mlm.py spec.json result.json

Steps in which it compiles count as median steps, to its advantage.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from maskwright.objectives.mlm import MaskedBatch
from maskwright.tokens.shards import open_split
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.training.evaluation import Validation
from maskwright.training.schedules import ScheduleConfig, rate_at

__all__ = ["main"]

_COMPILED_STEPS = 2


class _Windows(Dataset[dict[str, torch.Tensor]]):
    """The windows of a run in their order, from a memory-mapped array (samples, S)."""

    def __init__(self, path: str, num_samples: int, special_ids: tuple[int, ...]) -> None:
        self.rows = np.load(path, mmap_mode="r")
        self.num_samples = num_samples
        # In every window the specials of its ends and the </s> between documents; no other ever occurs.
        self.special = torch.zeros(1 << 17, dtype=torch.int64)
        self.special[list(special_ids)] = 1

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.rows[number].astype(np.int64))
        return {"input_ids": ids, "special_tokens_mask": self.special[ids]}


class _Clock(TrainerCallback):
    """Seconds of steps with everything between them, but without the evaluations."""

    def __init__(self, evaluate: Any, every: int, last: int) -> None:
        self.evaluate, self.every, self.last = evaluate, every, last
        self.seconds: list[float] = []
        self.curve: list[dict[str, float]] = []
        self.mark = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.mark)
        step = state.global_step
        if self.evaluate is not None and (step % self.every == 0 or step == self.last):
            self.curve.append({"step": step, **self.evaluate()})
        self.mark = time.perf_counter()


class _Trainer(Trainer):
    """With our learning rates: its own are those of one step earlier, and the first of them is zero."""

    def __init__(self, warmup_share: float, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.shape = ScheduleConfig(name="linear", warmup_share=warmup_share)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda done: rate_at(
                self.shape, 1.0, step=min(done + 1, num_training_steps), total_steps=num_training_steps
            ),
        )
        return self.lr_scheduler


def _collator(tokenizer: Tokenizer, folder: Path) -> DataCollatorForLanguageModeling:
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert (peer.mask_token_id, len(peer)) == (tokenizer.mask_id, tokenizer.vocab_size)
    # Full windows need no attention mask, and computing with one would cost.
    peer.model_input_names = ["input_ids"]
    return DataCollatorForLanguageModeling(peer, mlm_probability=0.15)


def _arguments(spec: dict[str, Any], folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=spec["steps"],
        per_device_train_batch_size=spec["batch"],
        train_sampling_strategy="sequential",
        dataloader_num_workers=spec["workers"],
        dataloader_pin_memory=False,
        bf16=spec["precision"] == "bf16",
        torch_compile=spec["compile"],
        use_cpu=True,
        optim="adamw_torch_fused",
        learning_rate=spec["lr"],
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        weight_decay=0.01,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",  # see _Trainer
        seed=spec["seed"],
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )


def _evaluator(model: nn.Module, validation: Validation, length: int, precision: str) -> Any:
    """Loss and accuracy on our validation batches, in the precision of training."""

    def forward(batch: MaskedBatch) -> dict[str, float]:
        ids = batch.ids_N.view(-1, length)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden = model.roberta(input_ids=ids)[0].view(len(batch.ids_N), -1)
            logits = model.lm_head(hidden[batch.targets_M]).float()
        loss = nn.functional.cross_entropy(logits, batch.labels_M, reduction="sum")
        right = (logits.argmax(-1) == batch.labels_M).sum()
        return {"loss_sum": loss.item(), "correct": right.item()}

    def evaluate() -> dict[str, float]:
        model.eval()
        found = validation.measure(forward)
        model.train()
        return {name: found[name] for name in ("loss", "accuracy", "targets")}

    return evaluate


def _curve(clock: _Clock) -> tuple[list[dict[str, float]], list[float]]:
    """The curve with seconds, and the seconds of each step with those of compiling set right."""
    median = statistics.median(clock.seconds)
    seconds = [min(median, one) for one in clock.seconds[:_COMPILED_STEPS]] + clock.seconds[_COMPILED_STEPS:]
    until = np.cumsum(seconds)
    return [{**point, "seconds": float(until[int(point["step"]) - 1])} for point in clock.curve], seconds


def train(spec: dict[str, Any]) -> dict[str, Any]:
    """Train as the specification says.

    Args:
        spec: `data` (folder), `windows` (.npy), `model` (shape), `dropout`, `length`, `steps`, `batch`,
            `lr`, `warmup_share`, `seed`, `precision`, `compile`, `workers`, `allocator`, `attention`,
            `evaluate_every` (0: never), `evaluation_sequences`.

    Returns:
        `curve`, `median_step_seconds`, `seconds` of all steps, and `first_seconds` as they were.
    """
    if spec["allocator"]:
        from maskwright.core.allocator import keep_large_buffers

        keep_large_buffers()
    set_seed(spec["seed"])
    folder = Path(spec["data"])
    tokenizer = Tokenizer.load(folder / "tokenizer")
    model = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=spec["length"] + 2,
            type_vocab_size=1,
            hidden_dropout_prob=spec["dropout"],
            attention_probs_dropout_prob=spec["dropout"],
            attn_implementation=spec["attention"],
            **spec["model"],
        )
    )
    evaluate = None
    if spec["evaluate_every"]:
        held_out = open_split(folder, "validation")
        sizes = {"num_sequences": spec["evaluation_sequences"], "batch_size": spec["batch"]}
        validation = Validation(held_out, tokenizer, sequence_length=spec["length"], **sizes)
        evaluate = _evaluator(model, validation, spec["length"], spec["precision"])
    clock = _Clock(evaluate, spec["evaluate_every"], spec["steps"])
    windows = _Windows(spec["windows"], spec["steps"] * spec["batch"], tokenizer.special_ids)
    with tempfile.TemporaryDirectory() as scratch:
        _Trainer(
            spec["warmup_share"],
            model=model,
            args=_arguments(spec, scratch),
            train_dataset=windows,
            data_collator=_collator(tokenizer, folder / "tokenizer"),
            callbacks=[clock],
        ).train()
    curve, seconds = _curve(clock)
    return {
        "curve": curve,
        "seconds": sum(seconds),
        "median_step_seconds": statistics.median(clock.seconds),
        "first_seconds": clock.seconds[:_COMPILED_STEPS],
    }


def main() -> None:
    """Read a specification, train, write the result."""
    spec, result = map(Path, sys.argv[1:3])
    result.write_text(json.dumps(train(json.loads(spec.read_text()))))


if __name__ == "__main__":
    main()
