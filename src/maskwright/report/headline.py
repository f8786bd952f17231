"""The top of the page: one sentence on the run, and its main numbers."""

from __future__ import annotations

import math

from .data import tokens_in_split
from .evaluation import estimate
from .inputs import Inputs
from .markup import Html, tag, tile_list
from .scale import compact, duration, grouped, percent, significant
from .values import items, mapping, number

__all__ = ["lede", "tiles"]

Tile = tuple[str, str, str]


def lede(inputs: Inputs) -> Html:
    """What this run was, in a sentence or two; empty when nothing is known."""
    summary, metrics = inputs.summary, inputs.metrics
    parameters, steps = number(summary.get("num_parameters")), number(summary.get("steps"))
    sentences = []
    if parameters is not None and steps is not None:
        seen = next((number(row.get("tokens_seen")) for row in reversed(metrics.train)), None)
        seconds = number(summary.get("seconds"))
        text = f"An encoder of {compact(parameters)} parameters, pretrained for {grouped(steps)} steps"
        text += f" on {compact(seen)} tokens" if seen is not None else ""
        text += f" in {duration(seconds)}" if seconds is not None else ""
        sentences.append(text + f"{_where(inputs)}.")
    if inputs.finetuned:
        names = ", ".join(run.name for run in inputs.finetuned)
        sentences.append(f"Fine-tuned and evaluated: {names}.")
    return tag("p", " ".join(sentences), class_="lede") if sentences else Html("")


def _where(inputs: Inputs) -> str:
    machine = mapping(inputs.summary.get("machine"))
    gpus, cores = items(machine.get("gpus")), number(machine.get("cores"))
    precision = inputs.summary.get("precision")
    if gpus:
        where = f" on {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    else:
        where = f" on {grouped(cores)} CPU core{'s' if cores != 1 else ''}" if cores is not None else ""
    processes = number(inputs.summary.get("processes"))
    if processes is not None and processes > 1:
        where += f", in the end by {grouped(processes)} processes ({inputs.summary.get('engine')})"
    return where + (f", in {precision}" if isinstance(precision, str) and precision else "")


def tiles(inputs: Inputs) -> Html:
    """The main numbers, each with what it is to be measured against; unknown ones are left out."""
    found = [
        _loss(inputs),
        _perplexity(inputs),
        _accuracy(inputs),
        _classifier(inputs),
        _speed(inputs),
        _peak(inputs),
        _documents(inputs),
        _tokens(inputs),
    ]
    return tile_list(found)


def _validation_loss(inputs: Inputs) -> float | None:
    """From the summary, or from the last evaluation of a run that has not ended."""
    known = [y for _, y in inputs.metrics.evaluated("loss") if y is not None]
    loss = number(inputs.summary.get("validation_loss"))
    return loss if loss is not None else next(reversed(known), None)


def _loss(inputs: Inputs) -> Tile | None:
    loss, unigram = _validation_loss(inputs), number(inputs.summary.get("unigram_loss"))
    if loss is None:
        return None
    return "Validation loss", significant(loss), f"unigram baseline {significant(unigram)}" if unigram else ""


def _perplexity(inputs: Inputs) -> Tile | None:
    loss, unigram = _validation_loss(inputs), number(inputs.summary.get("unigram_loss"))
    if loss is None or loss > 700:
        return None
    beside = f"unigram baseline {compact(math.exp(unigram))}" if unigram and unigram < 700 else ""
    return "Perplexity", significant(math.exp(loss)), beside


def _accuracy(inputs: Inputs) -> Tile | None:
    accuracy = number(inputs.summary.get("validation_accuracy"))
    return (
        ("Masked-token accuracy", percent(accuracy), "on validation text") if accuracy is not None else None
    )


def _classifier(inputs: Inputs) -> Tile | None:
    measured = [
        (run.name, found) for run in inputs.finetuned if (found := estimate(run.evaluation, "accuracy"))
    ]
    if not measured:
        return None
    (name, (value, ends)), others = measured[0], measured[1:]
    beside = f"{percent(ends[0])} to {percent(ends[1])}" if ends else name
    beside += f"; {others[0][0]} {percent(others[0][1][0])}" if others else ""
    return "Classifier accuracy", percent(value), beside


def _speed(inputs: Inputs) -> Tile | None:
    speed, steps = number(inputs.summary.get("tokens_per_second")), number(inputs.summary.get("steps"))
    if speed is None:
        return None
    return "Tokens per second", compact(speed), f"mean over {grouped(steps)} steps" if steps else ""


def _peak(inputs: Inputs) -> Tile | None:
    share, peak = number(inputs.summary.get("peak_share")), number(inputs.summary.get("matrix_peak_flops"))
    if share is None:
        return None
    return "Share of matrix peak", percent(share), f"of {compact(peak)}FLOP/s, measured" if peak else ""


def _documents(inputs: Inputs) -> Tile | None:
    kept, read = number(inputs.audit.get("documents_kept")), number(inputs.audit.get("documents_read"))
    if kept is None:
        return None
    return "Documents", grouped(kept), f"kept of {grouped(read)} read" if read else ""


def _tokens(inputs: Inputs) -> Tile | None:
    train = tokens_in_split(inputs.manifest, "train")
    vocabulary = number(mapping(inputs.manifest.get("tokenizer")).get("vocab_size"))
    if train is None:
        return None
    return "Training tokens", compact(train), f"vocabulary {grouped(vocabulary)}" if vocabulary else ""
