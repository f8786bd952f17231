"""Raw text to a data folder: clean documents, a tokenizer, token shards, and the account of it all.

    <output>/config.yaml           resolved settings
    <output>/tokenizer/            vocabulary, as `AutoTokenizer` reads it
    <output>/train/, validation/   shards
    <output>/documents/            clean documents, where asked for
    <output>/topics/               the labelled topic task, where asked for
    <output>/audit.json            what came in, what was dropped and why
    <output>/data_report.html      the same for people
    <output>/timings.json          how long the stages took
    <output>/inputs.json           what each input looked like
    <output>/work                  results of tasks, until the run is finished
    <output>/manifest.json         published last; a folder with it is whole

The stages and their order are in `preparation/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config import dump_config
from ..core.errors import DataError, ShardError, TokenizerError
from ..core.files import read_json, write_text
from ..core.fingerprint import fingerprint
from ..core.lock import lock_folder
from ..core.log import get_logger
from ..core.machine import available_cores
from ..corpus import input_files, warn_of_ignored
from ..corpus.runners import RunnerName, Share, make_runner
from ..report import build_data_report
from ..tokens.manifest import Manifest, load_manifest
from ..tokens.shards import open_split
from ..tokens.tokenizer import Tokenizer
from .outputs import claim_output
from .preparation.cutting import identify_words
from .preparation.pipeline import Preparation
from .preparation.publish import INPUTS, clear_work, discard, publish
from .prepare_config import PrepareConfig, TopicsConfig

__all__ = ["PrepareConfig", "prepare_data"]

log = get_logger(__name__)
REPORT = "data_report.html"


def prepare_data(
    config: PrepareConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    runner: RunnerName = "local",
    share: Share | None = None,
) -> dict[str, Any]:
    """Make a data folder, or finish one.

    Args:
        config: what to do.
        folder: where.
        resume: go on with what is there.
        overwrite: start again.
        workers: tasks at once; by default as many as there are CPUs.
        runner: `local` processes, or a `ray` cluster.
        share: do only this share of one stage; the folder is then shared with the other shares.

    Returns:
        Counts: documents, tokens, bytes per token, drops.

    Raises:
        DataError: a source cannot be used, or nothing is left of it.
        OutputExistsError: the folder is occupied, or another job is at work in it.
        ShareDone: the share is done; the rest of the run is for others.
        StorageError: the storage refused; what is finished stays.
    """
    request = _request(config)
    do = make_runner(runner, workers)
    with lock_folder(folder, shared=share is not None and share.stage != "finish"):
        claim_output(config, folder, resume=resume or share is not None, overwrite=overwrite)
        done = _finished(folder, request)
        if done is not None:
            log.info("%s: is finished already", folder)
            if not (folder / REPORT).exists():  # the last start was killed just before
                build_data_report(folder)
            clear_work(folder)
            return done
        discard(folder)
        made = Preparation(config, folder, do, share).run()
        if config.topics is not None:
            _write_topics(config.topics, folder, config.seed)
        workers = workers or (available_cores() if runner == "local" else None)
        manifest = publish(config, folder, made, request, workers=workers, runner=runner)
        build_data_report(folder)
        clear_work(folder)
        return _summary(folder, manifest)


def _request(config: PrepareConfig) -> dict[str, Any]:
    """What decides the outcome: the settings, and each input as it looks now.

    Raises:
        DataError: a source cannot be listed, or the list of words cannot be read.
        MissingDependencyError: what cuts words is not installed.
    """
    files = input_files(config.corpus.sources)
    warn_of_ignored(config.corpus.sources, files)
    inputs = [
        [config.corpus.sources[index].label, file.label, kind, file.version] for index, file, kind in files
    ]
    request = {"settings": fingerprint(dump_config(config)), "inputs": inputs}
    words = identify_words(config.words)
    return {**request, "words": words} if words else request


def _finished(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The result of an earlier start, if it is whole and made of the same."""
    try:
        if read_json(folder / INPUTS) != json.loads(json.dumps(request)):
            return None
        manifest = load_manifest(folder)
        for split in manifest.splits:
            open_split(folder, split)
        tokenizer = Tokenizer.load(folder / "tokenizer")
        if tokenizer.fingerprint != manifest.tokenizer.fingerprint:
            return None
        return _summary(folder, manifest)
    except (DataError, ShardError, TokenizerError) as error:
        log.debug("%s", error)
        return None


def _write_topics(config: TopicsConfig, folder: Path, seed: int) -> None:
    from ..corpus.local_docs import load_modules, topic_examples

    limits: Mapping[str, int] = {
        "train": config.train_per_label,
        "validation": config.test_per_label,
        "test": config.test_per_label,
    }
    examples = topic_examples(
        load_modules(folder / "work" / "cache"), num_labels=config.num_labels, per_label=limits, seed=seed
    )
    for split, rows in examples.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "topics" / f"{split}.jsonl", lines)
        log.info("topics: %d %s examples", len(rows), split)


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    audit = read_json(folder / "audit.json")
    return {
        "output": str(folder),
        "documents_read": audit["documents_read"],
        "documents_kept": audit["documents_kept"],
        "drops": audit["drops"],
        "vocab_size": manifest.tokenizer.vocab_size,
        "train_tokens": manifest.splits["train"].num_tokens,
        "validation_tokens": manifest.splits["validation"].num_tokens,
        "bytes_per_token": audit["bytes_per_token"],
        "warnings": audit["warnings"],
        "fingerprint": manifest.fingerprint,
    }
