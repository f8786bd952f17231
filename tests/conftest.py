"""What all tests share: one tiny prepared corpus, one pretrained and one fine-tuned model of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import maskwright
import tiny_world

# Models as small as these lose time with every further thread; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl")


@pytest.fixture(scope="session")
def data_folder(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data folder. Tests must not change it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    maskwright.prepare(tiny_world.prepare_values(corpus_file), output=folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pretraining run. Tests must not change it."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    maskwright.pretrain({**tiny_world.PRETRAIN, "data": str(data_folder)}, output=folder)
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of labelled texts by split."""
    return tiny_world.write_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="session")
def finetuned(pretrained: Path, labelled: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tuning run. Tests must not change it."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    values = {**tiny_world.FINETUNE, "model": str(pretrained), "data": labelled}
    maskwright.finetune(values, output=folder)
    return folder


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., CommandResult]]:
    """Run the command line in this process, in an empty folder: `command("inspect", folder)`."""
    from maskwright.cli.main import main

    monkeypatch.chdir(tmp_path)
    logger, handler = logging.getLogger("maskwright"), signal.getsignal(signal.SIGTERM)
    before = (list(logger.handlers), logger.level, logger.propagate)

    def run(*arguments: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["maskwright", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), printed.out, printed.err)

    yield run
    logger.handlers, logger.level, logger.propagate = before
    signal.signal(signal.SIGTERM, handler)
