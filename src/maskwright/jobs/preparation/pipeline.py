"""The order of the stages: count, contamination, clean, exact, near, lines, sample, tokenizer, encode.

Each stage is a list of numbered tasks (`corpus.runners`), made from the results of those before it.
The same code serves one process, many, a Ray cluster, and the share of one Slurm job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.fingerprint import fingerprint
from ...corpus import Audit, require_documents, require_few_bad_lines
from ...corpus.plan import InputTask, plan_inputs
from ...corpus.runners import Share, Stage, run_stage
from ...corpus.runners.stage import Runner
from ...corpus.spans import CountRequest
from ...corpus.stages import (
    CleanPart,
    Verdicts,
    bands_stage,
    clean_stage,
    clusters_stage,
    collect_parts,
    contamination_stage,
    count_stage,
    exact_stage,
    lines_stage,
)
from ..prepare_config import PrepareConfig
from .encode import BYTES_PER_TOKEN, encode_stage
from .vocabulary import sample_stage, tokenizer_stage

__all__ = ["Preparation", "Prepared", "stage_names"]

_WIDE = frozenset({"count", "clean", "exact", "bands", "lines", "sample", "encode"})


@dataclass
class Prepared:
    """What all stages gave.

    Attributes:
        inputs: what was read.
        parts: of the cleaned corpus.
        audit: the account of reading and cleaning, not of what encoding counted.
        verdicts: what deduplication decided.
        clusters: what the stage `clusters` says; empty without it.
        line_drops: how many repeated lines were found.
        contamination: what the stage `contamination` says; empty without it.
        encoded: the results of the tasks of `encode`.
        timings: of the stages, in order.
    """

    inputs: Sequence[InputTask] = ()
    parts: Sequence[CleanPart] = ()
    audit: Audit = field(default_factory=Audit)
    verdicts: Verdicts = field(default_factory=lambda: Verdicts(Path()))
    clusters: dict[str, Any] = field(default_factory=dict)
    line_drops: int = 0
    contamination: dict[str, Any] = field(default_factory=dict)
    encoded: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)


def stage_names(config: PrepareConfig) -> list[tuple[str, bool]]:
    """The stages of a run in order, each with whether it has many tasks.

    Args:
        config: decides which stages there are.
    """
    deduplication = config.corpus.deduplication
    asked = {
        "count": True,
        "contamination": config.corpus.contamination is not None,
        "clean": True,
        "exact": deduplication.exact,
        "bands": deduplication.near is not None,
        "clusters": deduplication.near is not None,
        "lines": deduplication.lines is not None,
        "sample": config.tokenizer.learns,
        "tokenizer": True,
        "encode": True,
        "finish": True,
    }
    return [(name, name in _WIDE) for name, wanted in asked.items() if wanted]


class Preparation:
    """One run of all stages, or of one share of one stage.

    Args:
        config: what to do.
        folder: the output folder, which this process holds.
        runner: does the tasks.
        share: do only this share of one stage.
    """

    def __init__(
        self, config: PrepareConfig, folder: Path, runner: Runner, share: Share | None = None
    ) -> None:
        self.config, self.folder = config, folder
        self._runner, self._share = runner, share
        self._name: Any = None  # of everything done so far, by content

    def run(self) -> Prepared:
        """Do what is missing.

        Returns:
            What all stages gave; the caller publishes it.

        Raises:
            ShareDone: the share is done.
            MaskwrightError: a source cannot be used, nothing is left of it, or the storage refused.
        """
        made = Prepared()
        self._plan(made)
        self._clean(made)
        self._deduplicate(made)
        self._encode(made)
        return made

    def _plan(self, made: Prepared) -> None:
        def count(requests: Sequence[CountRequest]) -> list[int]:
            return [result["count"] for result in self._run(count_stage(self.folder, requests), made)]

        made.inputs = plan_inputs(self.config.corpus.sources, self.config.split_bytes, count=count)

    def _clean(self, made: Prepared) -> None:
        corpus, index = self.config.corpus, None
        if corpus.contamination is not None:
            made.contamination = self._run(contamination_stage(corpus.contamination, self.folder), made)[0]
            index = made.contamination["path"]
        stage = clean_stage(
            corpus,
            made.inputs,
            self.folder,
            part_bytes=BYTES_PER_TOKEN * self.config.tokens_per_shard,
            index=index,
            request=self._name if index else None,
        )
        results = self._run(stage, made)
        made.parts = collect_parts(results)
        for result in results:
            made.audit.merge(Audit.from_state(result["audit"]))
        require_few_bad_lines(corpus, made.audit)
        require_documents(corpus, made.audit, sum(part.documents for part in made.parts))
        self._check_mixture({part.source for part in made.parts})
        made.timings[-1] |= {"documents": made.audit.documents_read, "bytes": made.audit.bytes_read}

    def _check_mixture(self, sources: set[str]) -> None:
        """Refuse a share for a source of which nothing is left, before the long work begins."""
        mixture = self.config.mixture
        for name, share in {**(mixture.weights or {}), **(mixture.epochs or {})}.items():
            if share > 0 and name not in sources:
                raise ConfigError(
                    f'mixture gives "{name}" a share of {share:g}, but none of its documents was kept; '
                    "take it out of the mixture, or mend the source"
                )

    def _deduplicate(self, made: Prepared) -> None:
        config, folder, parts = self.config.corpus.deduplication, self.folder, made.parts
        exact: list[str] = []
        near: list[str] = []
        lines: list[str] = []
        if config.exact:
            exact = _paths(self._run(exact_stage(folder, parts, self._name), made))
        if config.near is not None:
            found = self._run(bands_stage(folder, parts, config.near, exact, self._name), made)
            stage = clusters_stage(folder, parts, config.near, _paths(found), self._name)
            made.clusters = self._run(stage, made)[0]
            near = [made.clusters["path"]]
        if config.lines is not None:
            found = self._run(lines_stage(folder, parts, config.lines, [*exact, *near], self._name), made)
            lines = _paths(found)
            made.line_drops = sum(result["count"] for result in found)
        made.verdicts = Verdicts(folder, tuple(exact), tuple(near), tuple(lines))

    def _encode(self, made: Prepared) -> None:
        samples: list[dict[str, Any]] = []
        if self.config.tokenizer.learns:
            stage = sample_stage(self.config, self.folder, made.parts, made.verdicts, self._name)
            samples = self._run(stage, made)
        self._run(tokenizer_stage(self.config.tokenizer, self.folder, samples), made)
        stage = encode_stage(self.config, self.folder, made.parts, made.verdicts, self._name)
        made.encoded = self._run(stage, made)

    def _run(self, stage: Stage, made: Prepared) -> list[dict[str, Any]]:
        report = run_stage(stage, self._runner, self._share)
        # A later stage is named after all before it, so it is done again when one of them changes.
        self._name = fingerprint([self._name, stage.name, stage.request, list(stage.requests)])
        made.timings.append(
            {
                "name": stage.name,
                "tasks": stage.num_tasks,
                "executed": report.executed,
                "seconds": round(report.seconds, 3),
                "documents": sum(part.documents for part in made.parts),
                "bytes": sum(part.text_bytes for part in made.parts),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
            }
        )
        return report.results


def _paths(results: Sequence[dict[str, Any]]) -> list[str]:
    return [result["path"] for result in results]
