"""Log lines: on stderr as it is now, with a level from the environment."""

import io
import logging
import re

import pytest

from maskwright.core.errors import ConfigError
from maskwright.core.log import get_logger, set_up_logging


@pytest.fixture(autouse=True)
def fresh_root(monkeypatch):
    root = logging.getLogger("maskwright")
    before = (root.handlers[:], root.level, root.propagate)
    root.handlers.clear()
    monkeypatch.delenv("MASKWRIGHT_LOG", raising=False)
    yield root
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def test_lines_have_time_level_and_message(capsys):
    set_up_logging()
    set_up_logging()  # a second call adds nothing
    log = get_logger("maskwright.corpus")
    log.info("read %d files", 3)
    log.warning("slow")
    log.debug("hidden")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"[\d:]{8}  read 3 files\n[\d:]{8}  warning: slow\n", captured.err)


def test_an_exception_is_shown_with_its_traceback(capsys):
    set_up_logging()
    try:
        raise KeyError("lost")
    except KeyError:
        get_logger("other").exception("failed")
    assert re.search(r"error: failed\nTraceback .*\nKeyError: 'lost'", capsys.readouterr().err, re.DOTALL)


def test_lines_follow_a_redirected_stderr(monkeypatch):
    set_up_logging()
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    get_logger("maskwright").info("here")
    assert stream.getvalue().endswith("here\n")


def test_the_environment_sets_the_level(monkeypatch, capsys):
    monkeypatch.setenv("MASKWRIGHT_LOG", "debug")
    set_up_logging()
    get_logger("maskwright").debug("fine detail")
    assert "debug: fine detail" in capsys.readouterr().err


def test_an_unknown_level(monkeypatch):
    monkeypatch.setenv("MASKWRIGHT_LOG", "loud")
    with pytest.raises(ConfigError, match="MASKWRIGHT_LOG is 'LOUD', expected one of DEBUG, INFO"):
        set_up_logging()


def test_names_are_placed_under_the_package():
    assert get_logger("plugin").name == "maskwright.plugin"
    assert get_logger("maskwright.core").name == "maskwright.core"
