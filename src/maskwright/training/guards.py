"""Checks against faults that raise no error and only train a worse model.

At the start: no token sees another document, one micro-batch and several give the same gradient,
masks and labels are right, and what the cut into sequences does to the documents is told. While the
run goes on: the share of masked tokens of each log window. Each check gives None or a message that
names the fault, the place and the remedy. Cost: some forward passes over a few sequences at the
start, and a handful of numbers a log window.

Legend: N tokens of the probe laid end to end, D hidden, M predicted positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import MaskwrightError
from ..objectives.masking import Expectation, Masker
from ..objectives.masking.guards import check_mask_rate, check_masks
from ..parallel.engine import Objective
from ..tokens.shards import TokenData
from ..tokens.stream import SampleStream
from .hooks import Hook, Record

__all__ = [
    "Guards",
    "GuardsConfig",
    "Probe",
    "RateGuard",
    "check_accumulation",
    "check_leakage",
    "check_probe",
    "describe_samples",
    "document_pieces",
]

_Int64 = npt.NDArray[np.int64]
GuardLevel = Literal["default", "warn", "error", "off"]
# Documents that the leakage probe tells apart; it takes twice the logarithm of that in passes.
MAX_DOCUMENTS = 16
# How much is read to tell what the cut into sequences does: shards, documents of each, sequences.
MAX_SHARDS, MAX_SHARD_DOCUMENTS, MAX_SAMPLES = 32, 1 << 15, 256
# Largest difference between two splits of a step, relative to the gradient's norm: rounding alone
# stays some ten times below, and the mistakes that are made here lie far above.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}


class GuardsConfig(Config):
    """What happens when a check finds a fault. `guards: warn` is short for `level: warn`."""

    level: GuardLevel = Field(
        "default",
        description="what a fault does: error ends the run, warn tells, off checks nothing; default: a wrong "
        "mask, label or leak ends it, an unlikely rate is told",
    )
    accumulation: bool = Field(
        False, description="compare the first step's gradient in one micro-batch and in several"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_level(cls, values: Any) -> Any:
        return {"level": values} if isinstance(values, str) else values


class Guards:
    """Turns what checks find into warnings or the end of the run.

    Args:
        config: how strict to be.
        hooks: are told of each fault, as an event.
    """

    def __init__(self, config: GuardsConfig, hooks: Sequence[Hook]) -> None:
        self.config, self.hooks = config, hooks
        self._told: set[str] = set()

    @property
    def active(self) -> bool:
        """Whether to check at all."""
        return self.config.level != "off"

    def tell(self, step: int, message: str) -> None:
        """Tell the hooks something that is no fault."""
        for hook in self.hooks:
            hook.record({"kind": "event", "step": step, "message": message})

    def judge(self, name: str, step: int, fault: str | None, *, grave: bool = True) -> None:
        """Act on the result of one check.

        Args:
            name: of the check; a warning of the same check is given once.
            step: of the run.
            fault: what was found, None if nothing.
            grave: whether it ends the run by default.

        Raises:
            MaskwrightError: the fault ends the run.
        """
        if fault is None or not self.active:
            return
        ends = self.config.level == "error" or (self.config.level == "default" and grave)
        if ends:
            self.tell(step, f"ERROR: {name}: {fault}")
            raise MaskwrightError(
                f"step {step}: {name}: {fault}; guards.level=warn goes on in spite of it, guards.level=off "
                "does not look"
            )
        if name not in self._told:
            self._told.add(name)
            self.tell(step, f"WARNING: {name}: {fault}")


class RateGuard:
    """A hook that compares the share of masked tokens of each training record with the law of chance.

    It reads `mask_rate` and `eligible`, and, where the stream counts them, `expected_mask_rate` and
    `mask_variance` (of the number of masked tokens); without these each token stands for itself.

    Args:
        guards: decide what happens.
        mask_rate: share of tokens that is to be masked, where a record does not say.
    """

    def __init__(self, guards: Guards, mask_rate: float) -> None:
        self.guards, self.mask_rate = guards, mask_rate

    def record(self, record: Record) -> None:
        """Look at a training record. Raises `MaskwrightError` with `guards.level=error`."""
        if record["kind"] != "train" or not self.guards.active or "eligible" not in record:
            return
        rate, eligible = record.get("expected_mask_rate", self.mask_rate), int(record["eligible"])
        variance = record.get("mask_variance", eligible * rate * (1 - rate))
        expected = Expectation(eligible, eligible * rate, variance)
        fault = check_mask_rate(round(record["mask_rate"] * eligible), expected)
        self.guards.judge("mask rate", record["step"], fault, grave=False)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Probe:
    """A few training samples before and after masking, laid end to end.

    Attributes:
        ids: the tokens as the data has them, (N,).
        positions: their places in the data, -1 for added specials, (N,).
        lengths: tokens of each sample.
        seen: what the model sees, (N,).
        targets: which of the N tokens are predicted, (M,).
        labels: their right ids, (M,).
    """

    ids: _Int64
    positions: _Int64
    lengths: Sequence[int]
    seen: _Int64
    targets: _Int64
    labels: _Int64


def check_probe(
    guards: Guards,
    step: int,
    probe: Probe,
    masker: Masker,
    encode: Callable[[Tensor], Tensor] | None,
    eos_id: int,
) -> None:
    """Check masks and labels of a few samples, and that documents do not see each other.

    Args:
        guards: decide what a fault does.
        step: of the run.
        probe: the samples.
        masker: of the run.
        encode: ids (N,) to vectors (N, D) without dropout; None where documents may see each other.
        eos_id: id of `</s>`.

    Raises:
        MaskwrightError: a fault ends the run.
    """
    if not guards.active:
        return
    masked = (probe.seen, probe.targets, probe.labels)
    guards.judge("masks", step, check_masks(masker, probe.ids, probe.positions, *masked))
    if encode is not None:
        pieces = document_pieces(probe.ids, probe.positions, probe.lengths, eos_id)
        fault = check_leakage(encode, torch.from_numpy(probe.seen), pieces, len(masker.is_special))
        guards.judge("leakage", step, fault)


def document_pieces(ids: _Int64, positions: _Int64, lengths: Sequence[int], eos_id: int) -> list[int]:
    """Where documents begin and end within sequences, found from the tokens alone.

    The data closes each document with `</s>`. Added specials belong to the piece beside them.

    Args:
        ids: tokens of all sequences laid end to end, before masking, (N,).
        positions: their places in the data, -1 for added specials, (N,).
        lengths: tokens of each sequence.
        eos_id: id of `</s>`.

    Returns:
        Lengths of the pieces in order; they add up to N.
    """
    ends = np.cumsum(lengths)
    starts_of_pieces = {0, *ends.tolist()}
    for place in np.flatnonzero((ids == eos_id) & (positions >= 0)).tolist():
        following = place + 1
        if following < len(ids) and positions[following] >= 0:
            starts_of_pieces.add(following)
    cuts = sorted(starts_of_pieces)
    return [stop - start for start, stop in pairwise(cuts)]


def describe_samples(stream: SampleStream, eos_id: int) -> str:
    """What the cut into sequences does to the documents, for an event at the start.

    Args:
        stream: the training samples.
        eos_id: id of `</s>`.

    Returns:
        Share of documents longer than a sequence and of sequences that hold several documents, each of a
        bounded sample, and how many tokens an epoch leaves out and sentences it cuts.
    """
    lengths, room = _document_lengths(stream.data), stream.sequence_length - 2
    count = min(MAX_SAMPLES, stream.samples_per_epoch)
    batch = stream.batch(0, count)
    pieces = document_pieces(batch.ids, batch.positions, batch.lengths.tolist(), eos_id)
    owners = np.searchsorted(np.cumsum(batch.lengths), np.cumsum([0, *pieces[:-1]]), side="right")
    several = np.count_nonzero(np.bincount(owners, minlength=count) > 1)
    long = f"{(lengths > room).mean():.1%} of {len(lengths):,} documents" if len(lengths) else "no documents"
    return (
        f"samples: {long} are longer than the {room} tokens of a sequence; {several / count:.1%} of {count} "
        f"sequences hold several documents; an epoch leaves {stream.tokens_left_out:,} tokens out and cuts "
        f"{stream.cut_sentences:,} sentences"
    )


def _document_lengths(data: TokenData) -> _Int64:
    """Tokens of documents from shards all over the split."""
    chosen = np.unique(np.linspace(0, len(data.shards) - 1, min(MAX_SHARDS, len(data.shards))).astype(int))
    found = [data.document_lengths(shard, MAX_SHARD_DOCUMENTS) for shard in chosen.tolist()]
    return np.concatenate(found) if found else np.empty(0, np.int64)


@torch.no_grad()
def check_leakage(
    encode: Callable[[Tensor], Tensor], ids_N: Tensor, pieces: Sequence[int], vocab_size: int
) -> str | None:
    """Change the tokens of documents and look whether the vectors of others stay the same, bit for bit.

    Every pair of documents is told apart by one of the changes: document `i` changes in those whose
    bit is set in `i`, and in the others.

    Args:
        encode: ids (N,) to vectors (N, D), without dropout. It decides by itself who sees whom.
        ids_N: tokens of the probe, int64, where `encode` takes them. A few sequences are enough.
        pieces: lengths of the documents in the probe, from the data and not from the model's layout.
        vocab_size: number of ids.

    Returns:
        None, or which document saw which others.
    """
    told_apart = [int(length) for length in pieces][:MAX_DOCUMENTS]
    number_N = torch.full((len(ids_N),), -1)  # of its document; what lies behind them never changes
    number_N[: sum(told_apart)] = torch.repeat_interleave(
        torch.arange(len(told_apart)), torch.tensor(told_apart)
    )
    before_ND = encode(ids_N).cpu()
    if not bool(torch.isfinite(before_ND).all()):
        return "vectors of the probe batch are not finite; look at the weights that the run begins with"
    for bit in range((len(told_apart) - 1).bit_length()):
        for wanted in (0, 1):
            changes_N = (number_N >= 0) & ((number_N >> bit & 1) == wanted)
            changed_N = torch.where(changes_N.to(ids_N.device), (ids_N + 1) % vocab_size, ids_N)
            differs_N = (encode(changed_N).cpu() != before_ND).any(-1)
            if not bool(differs_N[changes_N].any()):
                return _BLIND
            seen = number_N[differs_N & ~changes_N & (number_N >= 0)]
            if len(seen):
                return _leak(int(seen[0]), sorted(set(number_N[changes_N].tolist())), told_apart)
    return None


_BLIND = (
    "vectors do not change with the tokens of the probe batch, so nothing can be said of leakage; "
    "give the guard the encoder of the run, in evaluation and without a cache"
)


def _leak(victim: int, sources: Sequence[int], lengths: Sequence[int]) -> str:
    place = sum(lengths[:victim])
    named = ", ".join(map(str, sources[:4])) + (", ..." if len(sources) > 4 else "")
    return (
        f"document {victim} of the probe batch (tokens {place} to {place + lengths[victim]}) changes with "
        f"the tokens of other documents ({named}); set attention=window if that is meant, else report this "
        "fault of the attention kernel or of the layout"
    )


def check_accumulation(
    model: nn.Module, objective: Objective, whole: Iterable[Any], parts: Iterable[Any]
) -> str | None:
    """Compare loss and gradient of the same samples in one micro-batch and in several, without dropout.

    Args:
        model: of the run; its gradients must be clear, and are clear again afterwards.
        objective: of the run.
        whole: the samples in one micro-batch (or a few).
        parts: the same samples in other micro-batches.

    Returns:
        None, or what differs and by how much.
    """
    counts, losses, gradient = _gradient(model, objective, list(whole))
    other_counts, other_losses, other = _gradient(model, objective, list(parts))
    if counts != other_counts:
        return (
            f"the probe step has {counts} targets in one micro-batch and {other_counts} in several; "
            "report this fault of the stream"
        )
    tolerance = max(_TOLERANCE.get(parameter.dtype, 0.0) for parameter in model.parameters())
    for name, value in losses.items():
        if not abs(value - other_losses[name]) <= tolerance * abs(value):
            return _split_dependent(f'the loss "{name}"', value, other_losses[name])
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient.values()]))
    for name, grad in gradient.items():
        difference = torch.linalg.vector_norm(grad - other[name])
        if not bool(difference <= tolerance * norm):
            return _split_dependent(
                f"the gradient of {name}",
                float(torch.linalg.vector_norm(grad)),
                float(torch.linalg.vector_norm(other[name])),
            )
    return None


def _split_dependent(what: str, one: float, several: float) -> str:
    return (
        f"{what} of the probe step is {one:.6g} in one micro-batch and {several:.6g} in several, so the size "
        "of micro-batches would change the result; report this fault of the objective"
    )


def _gradient(
    model: nn.Module, objective: Objective, batches: Sequence[Any]
) -> tuple[dict[str, int], dict[str, float], dict[str, Tensor]]:
    """Targets, mean losses and the gradient of a step, summed in fp32 or wider."""
    assert all(parameter.grad is None for parameter in model.parameters())
    counts = {name: sum(batch.targets[name] for batch in batches) for name in batches[0].targets}
    losses = dict.fromkeys(counts, 0.0)
    gradient = {
        name: torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
        for name, parameter in model.named_parameters()
    }
    for batch in batches:
        found, _ = objective(model, batch, train=False)
        means = {name: value / max(1, counts[name]) for name, value in found.items()}
        torch.stack(list(means.values())).sum().backward()  # type: ignore[no-untyped-call]
        for name, value in means.items():
            losses[name] += float(value.detach())
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradient[name] += parameter.grad
                parameter.grad = None
    return counts, losses, gradient
