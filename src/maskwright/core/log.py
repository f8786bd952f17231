"""Log lines for people, on stderr: time, level when it is not plain information, message."""

from __future__ import annotations

import logging
import os
import sys

from .errors import ConfigError

__all__ = ["get_logger", "process_rank", "set_up_logging"]

_ROOT = "maskwright"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def process_rank() -> int:
    """Number of this process in a run of several, as torchrun says; 0 where there is one."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdecimal() else 0


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        rank = f"rank {process_rank()}: " if process_rank() else ""
        line = f"{self.formatTime(record, '%H:%M:%S')}  {rank}{level}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at that moment: a progress bar, a test, a redirection may own it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; pass `__name__`."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")


def set_up_logging() -> None:
    """Send our log lines to stderr. `MASKWRIGHT_LOG` (DEBUG, INFO, WARNING) sets how many.

    Raises:
        ConfigError: `MASKWRIGHT_LOG` is none of the levels.
    """
    root = logging.getLogger(_ROOT)
    if root.handlers:
        return
    level = os.environ.get("MASKWRIGHT_LOG", "INFO").upper()
    if level not in _LEVELS:
        raise ConfigError(f"MASKWRIGHT_LOG is {level!r}, expected one of {', '.join(_LEVELS)}")
    handler = _StderrHandler()
    handler.setFormatter(_Format())
    root.addHandler(handler)
    # What one process tells about the run need not be told by each.
    root.setLevel("WARNING" if process_rank() and level == "INFO" else level)
    root.propagate = False
