"""What exit codes mean together, and which worker is named."""

import signal
from pathlib import Path

import pytest

from maskwright.core.errors import Interrupted, MaskwrightError, UserError
from maskwright.jobs.launching import Ending, judge
from maskwright.jobs.launching.endings import deciding_rank, describe_code, last_words

KILL, TERM = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("codes", "asked", "verdict"),
    [
        ({}, False, "finished"),
        ({0: 0, 1: 0}, True, "finished"),
        ({0: 3, 1: 0}, False, "interrupted"),
        ({0: 3, 1: TERM}, True, "interrupted"),
        ({0: 3, 1: TERM}, False, "crashed"),
        ({0: 3, 1: KILL}, True, "crashed"),
        ({0: 2, 1: 1}, False, "refused"),
        ({0: 3, 1: 2}, False, "refused"),
        ({0: 2, 1: KILL}, False, "crashed"),
        ({0: 1, 1: 3}, False, "crashed"),
    ],
)
def test_judge(codes, asked, verdict):
    assert judge(codes, asked=asked) == verdict


def test_who_decides():
    assert deciding_rank({0: 1, 1: KILL}, "crashed") == 1
    assert deciding_rank({2: 1, 0: 1}, "crashed") == 2  # ended first
    assert deciding_rank({1: 1, 3: 2}, "refused") == 3
    assert deciding_rank({1: 2, 0: 2}, "refused") == 0  # says the same, and on the terminal
    assert deciding_rank({1: TERM, 0: 3}, "interrupted") == 0


def test_codes_in_words():
    assert describe_code(7) == "ended with exit code 7"
    assert describe_code(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert describe_code(KILL) == "was killed by SIGKILL (perhaps for its memory)"
    assert describe_code(-63) == "was killed by signal 63"


def test_last_words(tmp_path):
    path = tmp_path / "rank-1.err"
    assert last_words(path) is None
    path.write_text("12:00:00  started\n", "utf-8")
    assert last_words(path) is None
    path.write_text("error: old\nmore\nrank 1: error: no such file: 语料/甲.txt\n  check it\n", "utf-8")
    assert last_words(path) == "no such file: 语料/甲.txt\n  check it"


class TestCheck:
    """Each ending is one error of the tree, whose exit code is that of the launcher."""

    LOGS = Path("runs/r/logs/x")

    def test_finished(self):
        ending = Ending("finished", {}, self.LOGS)
        ending.check()
        assert ending.exit_code == 0

    def test_refused(self):
        ending = Ending("refused", {1: 2}, self.LOGS, words="bad value")
        with pytest.raises(UserError, match=r"^rank 1 ended with exit code 2: bad value; the logs of all"):
            ending.check()
        assert ending.exit_code == 2

    def test_interrupted(self):
        with pytest.raises(Interrupted, match=r"^stopped by SIGUSR1 after saving$"):
            Ending("interrupted", {0: 3}, self.LOGS, asked="SIGUSR1").check()
        with pytest.raises(Interrupted, match=r"^stopped by a signal to its workers after saving$"):
            Ending("interrupted", {0: 3}, self.LOGS).check()

    def test_crashed(self):
        ending = Ending("crashed", {0: 1}, self.LOGS, restarts=2, words="told before", told=True)
        with pytest.raises(MaskwrightError, match=r"exit code 1, after 2 restarts \(see above\); the logs"):
            ending.check()
        assert ending.exit_code == 1
