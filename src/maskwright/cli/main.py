"""The entry point: commands, exit codes, and errors as one clear line.

Exit codes: 0 done; 2 bad input, nothing was lost; 3 interrupted, the same command goes on; 1 our
fault. `MASKWRIGHT_DEBUG=1` shows tracebacks.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

import typer

from .. import __version__
from ..core.errors import Interrupted, MaskwrightError, StorageError
from ..core.log import process_rank, set_up_logging
from .convert import export, import_
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .finetune import finetune
from .inspect import inspect
from .launch import launch
from .monitor import monitor
from .predict import predict
from .prepare import prepare
from .pretrain import pretrain

__all__ = ["app", "main"]

app = typer.Typer(
    name="maskwright",
    help="From raw text to a trained, measured and served RoBERTa-class encoder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    epilog="Exit codes: 0 done, 2 bad input, 3 interrupted and resumable, 1 our fault.",
)


class _Escaped(Exception):  # noqa: N818 - it carries one
    """Carries out of typer what typer would answer with exit codes of its own."""


def _escaping(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise _Escaped from error

    return run


for command in (
    prepare,
    pretrain,
    launch,
    finetune,
    evaluate,
    predict,
    inspect,
    monitor,
    doctor,
    demo,
    export,
):
    app.command()(_escaping(command))
app.command("import")(_escaping(import_))

DEBUG = "MASKWRIGHT_DEBUG"
_NO_MEMORY = "can't allocate memory"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Nothing is shared by the commands but this."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        set_up_logging()
        app(prog_name="maskwright")
    except SystemExit:
        raise
    except BaseException as escaped:
        error = escaped.__cause__ or escaped if isinstance(escaped, _Escaped) else escaped
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            traceback.print_exc()
        sys.exit(_report(error))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(error: BaseException) -> int:
    """Say what happened on stderr (and on stdout for --json), and choose the exit code."""
    code, message = _explain(error)
    # All processes of a run are interrupted together, and one line is enough.
    if message and not (code == Interrupted.exit_code and process_rank()):
        label = "interrupted" if code == Interrupted.exit_code else "error"
        typer.echo(f"{_who()}{label}: {message}", err=True)
        if "--json" in sys.argv and not process_rank():
            from .common import print_json

            print_json({label: message, "exit_code": code})
    return code


def _who() -> str:
    return f"rank {process_rank()}: " if process_rank() else ""


def _explain(error: BaseException) -> tuple[int, str]:
    again = "run the same command again" if "demo" in sys.argv else "run the same command with --resume"
    if isinstance(error, Interrupted):
        return error.exit_code, f"{error}, {again} to go on"
    if isinstance(error, MaskwrightError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code, f"stopped; what was finished is kept, {again} to go on"
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away, which is its right; keep Python quiet about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, ""
    if isinstance(error, OSError) and (refusal := _storage_refusal(error)):
        return refusal.exit_code, str(refusal)
    # torch has an error of its own for a GPU, and none but a sentence for a CPU.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or _NO_MEMORY in str(error)
    ):
        return 2, "out of memory; lower the micro-batch or the model size"
    return 1, f"internal: {type(error).__name__}: {error}; please report it, with {DEBUG}=1 for the traceback"


def _storage_refusal(error: OSError) -> StorageError | None:
    """A disk that is full or closed, wherever it was met."""
    from ..core.files import storage_errors

    try:
        with storage_errors(error.filename or "storage"):
            raise error
    except StorageError as refusal:
        return refusal
    except OSError:
        return None
