"""Pretrain `RobertaForMaskedLM` with the Trainer of `transformers` and DeepSpeed, on data of Maskwright.

    maskwright prepare ... --output data
    torchrun --nproc-per-node 2 examples/hf_trainer_deepspeed.py data output

ZeRO-2 with gradient accumulation; fp16 on GPUs, bf16 on the CPU, which is taken where there is no GPU. What
comes from Maskwright: the tokenizer, the packed samples in a keyed order, masks of whole words, and a loss
in which every predicted token of a step weighs the same. The weights land in OUTPUT/model.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    # Read when deepspeed is imported, which transformers does.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

from transformers import RobertaConfig, RobertaForMaskedLM, Trainer, TrainingArguments  # noqa: E402

from maskwright.objectives.hf_collator import MaskingCollator, masked_lm_mean  # noqa: E402
from maskwright.objectives.masking import MaskingConfig  # noqa: E402
from maskwright.tokens.interchange.torch_dataset import PackedDataset  # noqa: E402


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="a data folder made by `maskwright prepare`")
    parser.add_argument("output", type=Path, help="where checkpoints and the model go")
    parser.add_argument("--deepspeed", type=Path, default=Path(__file__).with_name("ds_config.json"))
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps")
    parser.add_argument("--sequence-length", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--micro-batch", type=int, default=8, help="samples of a process at a time")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def roberta(options: argparse.Namespace, data: PackedDataset) -> RobertaForMaskedLM:
    """A small RoBERTa for the vocabulary of the data."""
    tokenizer = data.tokenizer
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=options.hidden_size,
            num_hidden_layers=options.layers,
            num_attention_heads=max(1, options.hidden_size // 64),
            intermediate_size=4 * options.hidden_size,
            max_position_embeddings=options.sequence_length + tokenizer.pad_id + 1,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
        )
    )


def training_arguments(options: argparse.Namespace) -> TrainingArguments:
    """How to train; `ds_config.json` takes over what it calls "auto"."""
    return TrainingArguments(
        str(options.output),
        deepspeed=str(options.deepspeed),
        max_steps=options.steps,
        per_device_train_batch_size=options.micro_batch,
        per_device_eval_batch_size=options.micro_batch,
        gradient_accumulation_steps=options.accumulation,
        # The samples come in a keyed random order already.
        train_sampling_strategy="sequential",
        fp16=ON_GPU,
        bf16=not ON_GPU,
        use_cpu=not ON_GPU,
        learning_rate=options.lr,
        warmup_steps=max(1, options.steps // 10),
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        seed=options.seed,
        logging_steps=max(1, options.steps // 20),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=ON_GPU,
    )


def main() -> None:
    """Train, evaluate on the validation split, and save model and tokenizer."""
    options = arguments()
    # Before the model: DeepSpeed must know of the config when weights are made.
    how = training_arguments(options)
    train = PackedDataset(options.data, options.sequence_length, seed=options.seed)
    valid = PackedDataset(options.data, options.sequence_length, split="validation", shuffle=False)
    trainer = Trainer(
        model=roberta(options, train),
        args=how,
        train_dataset=train,
        eval_dataset=valid,
        data_collator=MaskingCollator([train, valid], MaskingConfig(unit="word"), options.seed),
        compute_loss_func=masked_lm_mean,
    )
    trainer.train()
    trainer.log_metrics("eval", trainer.evaluate())
    trainer.save_model(str(options.output / "model"))
    if trainer.is_world_process_zero():
        train.tokenizer.save(options.output / "model", options.sequence_length)
        trainer.state.save_to_json(str(options.output / "trainer_state.json"))


if __name__ == "__main__":
    main()
