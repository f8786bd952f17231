"""The gate between our model and that of `transformers`: the same weights must give the same numbers.

Both compute a fixed batch in fp32: unequal lengths with padding, special tokens and both ends of the
vocabulary, two segments where the model has token types, and one sequence as long as the position
table allows. Cost: both models in memory, and two forward passes of some 600 tokens each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import CheckpointError
from ..config import EncoderConfig
from ..heads import MaskedLM, SequenceClassifier
from ..layout import Layout
from .names import base_prefix

__all__ = ["MAX_DIFFERENCE", "Parity", "check_parity"]

# Absolute. Orders of summation differ by some 1e-6; an epsilon, an activation or a position that is
# not the model's is off by far more.
MAX_DIFFERENCE = 1e-4
_LENGTHS = (48, 5, 17, 2, 33)
_ENDS = 8

Model = MaskedLM | SequenceClassifier
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Parity:
    """How two implementations of one model compare.

    Attributes:
        max_difference: largest absolute difference of any output; None where nothing was compared.
        largest: largest absolute value among the outputs, for scale.
        outputs: names of what was compared.
        against: library and version, or why there was no comparison.
    """

    max_difference: float | None
    largest: float
    outputs: tuple[str, ...]
    against: str

    def __str__(self) -> str:
        """One line for people."""
        if self.max_difference is None:
            return f"not compared: {self.against}"
        return (
            f"{self.max_difference:.1e} at most to {self.against} in {', '.join(self.outputs)} "
            f"(values up to {self.largest:.1f})"
        )


def check_parity(model: Model, folder: Path, special_ids: Sequence[int] = ()) -> Parity:
    """Compare a model of ours with what `transformers` makes of a folder.

    Args:
        model: fp32, on the CPU.
        folder: a Hugging Face folder with the same weights.
        special_ids: ids that the batch must hold, beside those of the config.

    Returns:
        The comparison; without one where `transformers` is not installed.

    Raises:
        CheckpointError: `transformers` cannot load the folder, an output is not finite, or the
            largest difference is above `MAX_DIFFERENCE`.
    """
    try:
        import transformers
    except ImportError:
        return Parity(None, 0.0, (), "transformers is not installed (pip install 'maskwright[hf]')")
    training = model.training
    model.eval()
    with torch.no_grad(), _quiet(transformers):
        references = _load_references(transformers, model, folder)
        ours, theirs = _outputs(model, references, special_ids)
    model.train(training)
    return _compare(ours, theirs, folder, f"transformers {transformers.__version__}")


def _compare(ours: Outputs, theirs: Outputs, folder: Path, against: str) -> Parity:
    largest, worst, where = 0.0, 0.0, ""
    for name, values in ours.items():
        for who, tensor in (("this model", values), (against, theirs[name])):
            if not torch.isfinite(tensor).all():
                raise CheckpointError(
                    f"{folder}: {name} of {who} are NaN or infinite on a fixed batch; the weights are "
                    "damaged, use an earlier checkpoint"
                )
        difference = (values - theirs[name]).abs().max().item()
        largest = max(largest, values.abs().max().item())
        if difference >= worst:
            worst, where = difference, name
    if worst > MAX_DIFFERENCE:
        raise CheckpointError(
            f"{folder}: {where} differ by {worst:.2e} from those of {against} (values up to {largest:.1f}), "
            f"at most {MAX_DIFFERENCE:.0e} is accepted; the config does not describe these weights, "
            "or the model is of a kind that is not supported"
        )
    return Parity(worst, largest, tuple(ours), against)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the library from reporting on tensors that we compare ourselves."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load_references(transformers: Any, model: Model, folder: Path) -> dict[str, Any]:
    """The models of the library that have our outputs: with the head, and with the pooler alone."""
    if isinstance(model, SequenceClassifier):
        names = {"head": "AutoModelForSequenceClassification"}
    elif model.nsp_output is not None and model.config.model_type == "bert":
        names = {"head": "AutoModelForPreTraining"}
    else:
        names = {"head": "AutoModelForMaskedLM"}
        if model.pooler is not None:
            names["pooler"] = "AutoModel"
    options = {"dtype": torch.float32, "attn_implementation": "eager", "local_files_only": True}
    try:
        return {
            part: getattr(transformers, name).from_pretrained(folder, **options).eval()
            for part, name in names.items()
        }
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: transformers cannot load it ({reason}); mend the folder") from error


def _outputs(model: Model, references: dict[str, Any], special_ids: Sequence[int]) -> tuple[Outputs, Outputs]:
    """Outputs of both by name, for real tokens only."""
    config = model.config
    ours, theirs = {}, {}
    rows = _rows(config, special_ids)
    ids_N, layout, types_N, padded = _lay_out(rows, config)
    hidden_ND = model.encoder(ids_N, layout, None, types_N)
    found = references["head"](**padded)
    if isinstance(model, SequenceClassifier):
        ours["class logits"], theirs["class logits"] = model(ids_N, layout, None, types_N), found.logits
    else:
        real = padded["attention_mask"].bool()
        ours["logits"] = model.logits(hidden_ND)
        theirs["logits"] = (found.logits if "logits" in found else found.prediction_logits)[real]
        if "seq_relationship_logits" in found:
            ours["next-sentence logits"] = model.next_sentence_logits(hidden_ND, layout)
            theirs["next-sentence logits"] = found.seq_relationship_logits
        if "pooler" in references:
            ours["pooled states"] = model.pooled(hidden_ND, layout)
            theirs["pooled states"] = references["pooler"](**padded).pooler_output
    # Logits of a long sequence would take gigabytes for a large vocabulary; hidden states show as much.
    longest = torch.arange(config.max_length) % config.vocab_size
    ids_N, layout, types_N, padded = _lay_out([_without_padding(longest, config)], config)
    ours["hidden states"] = model.encoder(ids_N, layout, None, types_N)
    base = getattr(references["head"], base_prefix(config.model_type))
    theirs["hidden states"] = base(**padded).last_hidden_state[0]
    return ours, theirs


def _rows(config: EncoderConfig, special_ids: Sequence[int]) -> list[Tensor]:
    """Ids of the sequences: drawn from a fixed seed, with specials and both ends of the vocabulary."""
    size = config.vocab_size
    wanted = {*range(_ENDS), *range(size - _ENDS, size), *special_ids}
    wanted |= {config.bos_token_id or 0, config.eos_token_id or 0}
    listed = torch.tensor(sorted(number for number in wanted if 0 <= number < size))
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(0, size, (min(length, config.max_length),), generator=generator) for length in _LENGTHS
    ]
    flat = torch.cat(rows)
    flat[: len(listed)] = listed[: len(flat)]
    return [_without_padding(row, config) for row in torch.split(flat, [len(row) for row in rows])]


def _without_padding(ids: Tensor, config: EncoderConfig) -> Tensor:
    """Padding among real tokens would move RoBERTa's positions there, and nobody trains on that."""
    return torch.where(ids == config.pad_token_id, (config.pad_token_id + 1) % config.vocab_size, ids)


def _lay_out(
    rows: list[Tensor], config: EncoderConfig
) -> tuple[Tensor, Layout, Tensor | None, dict[str, Tensor]]:
    """The same batch laid end to end for us, and padded for the library."""

    def pad(parts: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    padded = {
        "input_ids": pad(rows, config.pad_token_id),
        "attention_mask": pad([torch.ones_like(row) for row in rows], 0),
    }
    types = [(torch.arange(len(row)) >= len(row) // 2).long() for row in rows]
    types_N = torch.cat(types) if config.type_vocab_size > 1 else None
    if types_N is not None:
        padded["token_type_ids"] = pad(types, 0)
    return torch.cat(rows), Layout([len(row) for row in rows]), types_N, padded
