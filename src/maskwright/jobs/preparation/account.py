"""The account of a finished run: `audit.json`, which has no clock in it, and `timings.json`, which has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.machine import describe_machine
from ...corpus import Audit
from ...corpus.dedup.bands import choose_bands, probability_curve
from ...corpus.dedup.contamination import CONTAMINATED
from ...corpus.parts import read_part
from ...corpus.stages import CleanPart, Place, find_marks, name_marks
from ...corpus.warnings import data_warnings
from ...tokens.extend import Extension, read_extension
from ...tokens.manifest import Manifest
from ...tokens.token_statistics import TokenStatistics
from ..prepare_config import PrepareConfig
from .pipeline import Prepared

__all__ = ["make_audit", "make_timings"]

_MAX_INPUTS = 200
_EXCERPT_CHARACTERS = 200


def make_audit(config: PrepareConfig, folder: Path, made: Prepared, manifest: Manifest) -> dict[str, Any]:
    """Everything that is to be known about what came in and what became of it.

    Args:
        config: of the run.
        folder: the output folder, with the parts still in it.
        made: what the stages gave.
        manifest: of the shards.

    Returns:
        The content of `audit.json`, the same for the same inputs and settings.

    Raises:
        DataError: a part is damaged.
    """
    audit = made.audit
    for result in made.encoded:
        audit.merge(Audit.from_state(result["audit"]))
    names = _name_places(folder, made, audit)
    audit.drop_samples = {
        reason: [
            name_marks(sample, {place: found[0] for place, found in names.items()}) for sample in samples
        ]
        for reason, samples in audit.drop_samples.items()
    }
    values = audit.as_dict()
    tokens = manifest.splits["train"].tokens_by_source
    for name, source in values["sources"].items():
        source["tokens"] = sum(split.tokens_by_source.get(name, 0) for split in manifest.splits.values())
        source["repeats"] = manifest.repeats.get(name, 1.0) if name in tokens else 0.0
    num_tokens = sum(split.num_tokens for split in manifest.splits.values())
    values |= {
        "num_tokens": num_tokens,
        "bytes_per_token": audit.bytes_kept / max(1, num_tokens),
        "tokens_by_language": _statistics(made).as_dict(),
        "duplicates": _duplicates(config, made, audit, names),
        "contamination": _contamination(config, made, audit),
        "inputs": _inputs(made),
        "num_inputs": len(made.inputs),
        "splits": {
            name: {"documents": split.num_documents, "tokens": split.num_tokens}
            for name, split in manifest.splits.items()
        },
    }
    if config.words.segmenter != "none":
        values["words"] = _words(config, manifest)
    if (extension := read_extension(folder / "tokenizer")) is not None:
        values["extension"] = _extension(extension)
    return {**values, "warnings": [*data_warnings(values), *_own_warnings(made)]}


def make_timings(made: Prepared, workers: int | None, runner: str) -> dict[str, Any]:
    """How long the stages took this time, and where."""
    return {
        "machine": describe_machine(with_gpus=False),  # asking for them would import torch
        "workers": workers,
        "runner": runner,
        "stages": made.timings,
    }


def _statistics(made: Prepared) -> TokenStatistics:
    total = TokenStatistics()
    for result in made.encoded:
        total.merge(TokenStatistics.from_state(result["statistics"]))
    return total


def _words(config: PrepareConfig, manifest: Manifest) -> dict[str, Any]:
    splits = manifest.splits.values()
    words = sum(shard.num_words for split in splits for shard in split.shards)
    tokens = sum(split.num_tokens - split.num_documents for split in splits)  # closing ones left out
    return {
        "segmenter": config.words.segmenter,
        "words": words,
        "tokens_per_word": tokens / max(1, words),
    }


def _extension(extension: Extension) -> dict[str, Any]:
    sample = extension.sample
    return {
        "base_vocab_size": extension.base_vocab_size,
        "new_entries": len(extension.new),
        "words": sample.words,
        "tokens_per_word_before": sample.tokens_before / max(1, sample.words),
        "tokens_per_word": sample.tokens_after / max(1, sample.words),
    }


def _own_warnings(made: Prepared) -> list[str]:
    if all(result["fast"] for result in made.encoded):
        return []
    return [
        "tokenizer: the fast encoder could not be used or differed from the reference, which took over; "
        "encoding was slower, and the ids are right"
    ]


def _name_places(folder: Path, made: Prepared, audit: Audit) -> dict[Place, tuple[str, str]]:
    """Ids and excerpts of the documents that samples and the largest clusters point to."""
    samples = [sample for found in audit.drop_samples.values() for sample in found]
    wanted = find_marks(samples)
    for cluster in made.clusters.get("largest", []):
        wanted.add(tuple(cluster["kept"]))
        wanted.update(tuple(place) for place in cluster["dropped"])
    parts = {part.number: part for part in made.parts}
    found: dict[Place, tuple[str, str]] = {}
    for number in sorted({place[0] for place in wanted}):
        rows = {row for part, row in wanted if part == number}
        found |= _read_rows(folder, parts[number], rows)
    return found


def _read_rows(folder: Path, part: CleanPart, rows: set[int]) -> dict[Place, tuple[str, str]]:
    found: dict[Place, tuple[str, str]] = {}
    for row, document in enumerate(read_part(folder / part.path)):
        if row in rows:
            excerpt = " ".join(document.text[:_EXCERPT_CHARACTERS].split())
            found[part.number, row] = (document.id, excerpt)
            if len(found) == len(rows):
                break
    return found


def _duplicates(
    config: PrepareConfig, made: Prepared, audit: Audit, names: Mapping[Place, tuple[str, str]]
) -> dict[str, Any]:
    settings = config.corpus.deduplication
    found: dict[str, Any] = {}
    if settings.exact:
        found["exact"] = {"documents": audit.drops["exact_duplicate"]}
    if settings.lines is not None:
        found["lines"] = {"lines": made.line_drops}
    if settings.near is not None:
        bands = choose_bands(settings.near.num_perm, settings.near.threshold)
        found["near"] = {
            "documents": audit.drops["near_duplicate"],
            "clusters": made.clusters["clusters"],
            "cluster_sizes": made.clusters["cluster_sizes"],
            "largest": [_cluster(cluster, names) for cluster in made.clusters["largest"]],
            "threshold": settings.near.threshold,
            "bands": bands.bands,
            "rows": bands.rows,
            "curve": probability_curve(bands),
        }
    return found


def _cluster(cluster: Mapping[str, Any], names: Mapping[Place, tuple[str, str]]) -> dict[str, Any]:
    kept, text = names[tuple(cluster["kept"])]
    dropped = [names[tuple(place)][0] for place in cluster["dropped"]]
    return {"size": cluster["size"], "kept": kept, "text": text, "dropped": dropped}


def _contamination(config: PrepareConfig, made: Prepared, audit: Audit) -> dict[str, Any]:
    settings = config.corpus.contamination
    if settings is None:
        return {}
    return {
        "documents": audit.drops[CONTAMINATED] + audit.flags[CONTAMINATED],
        "evaluation": [one.label for one in settings.evaluation],
        "counts": made.contamination["counts"],
        "ngram": settings.ngram,
        "action": settings.action,
    }


def _inputs(made: Prepared) -> list[dict[str, Any]]:
    """The files that were read; the spans of one file are one input."""
    sizes: Counter[tuple[str, str, str]] = Counter()
    for task in made.inputs:
        sizes[task.source, task.file.label, task.format] += task.num_bytes
    return [
        {"source": source, "label": label, "format": format_name, "bytes": size}
        for (source, label, format_name), size in list(sizes.items())[:_MAX_INPUTS]
    ]
