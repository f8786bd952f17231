"""Run the stages of cleaning one by one, on a few lines of text."""

from __future__ import annotations

import json

from maskwright.core.config import parse_config
from maskwright.corpus import CorpusConfig
from maskwright.corpus.parts import read_part
from maskwright.corpus.plan import plan_inputs
from maskwright.corpus.runners import make_runner, run_stage
from maskwright.corpus.stages import clean_stage, collect_parts

ONE = make_runner("local", 1)


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def config(*paths, **settings):
    return parse_config(
        CorpusConfig, {"sources": [{"path": str(path)} for path in paths], **settings}, "test"
    )


def clean(corpus, folder, *, part_bytes=1 << 20, split_bytes=1 << 30, **options):
    """Run the stage `clean`: its results, and the parts."""
    stage = clean_stage(
        corpus, plan_inputs(corpus.sources, split_bytes), folder, part_bytes=part_bytes, **options
    )
    results = run_stage(stage, ONE).results
    return results, collect_parts(results)


def texts_of(folder, parts):
    return [[document.text for document in read_part(folder / part.path)] for part in parts]


def words(number, count=40):
    """A text that shares no run of words with the others."""
    letters = "abcdefghijklmnopqrstuvwxyz"  # digits are all alike where lines are compared
    return " ".join(f"{letters[number]}{letters[place // 26]}{letters[place % 26]}" for place in range(count))
