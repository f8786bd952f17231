"""Progress: silent without a terminal, a bar on stderr with one, and never in the way."""

import contextlib
import io
from collections.abc import Iterator

import pytest

from maskwright.core.progress import progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    with contextlib.redirect_stderr(Terminal()) as stream:
        yield stream


def test_silent_without_a_terminal(capsys):
    with progress("reading", 3, "files") as advance:
        advance(3)
    assert list(track([1, 2], "reading", 2, "files")) == [1, 2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("total", [1000, None, 0])
def test_a_bar_on_a_terminal(capsys, total):
    with terminal() as stream, progress("reading", total, "files") as advance:
        advance(400)
        advance(600.5)
    text = stream.getvalue()
    assert "reading" in text
    assert "1,000" in text
    assert ("/1,000 files" in text) is bool(total)
    assert capsys.readouterr().out == ""


def test_track_passes_items_through_one_by_one():
    seen = []

    def source():
        for number in range(3):
            seen.append(number)
            yield number

    with terminal() as stream:
        items = track(source(), "reading", 3, "files")
        assert next(items) == 0
        assert seen == [0], "an item was taken before it was asked for"
        assert list(items) == [1, 2]
    assert "3/3 files" in stream.getvalue()


def test_an_error_inside_comes_out_and_the_terminal_is_given_back():
    with terminal() as stream, pytest.raises(KeyError), progress("reading", 2, "files"):
        raise KeyError("x")
    text = stream.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor stayed hidden"
