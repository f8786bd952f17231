"""Read the documentation of the whole environment, on all cores, once.

Parsing is done by bare interpreters that run `docstrings.py` and answer over pipes. They import
nothing of ours, start in tens of milliseconds, and need no `__main__` guard in the caller's script,
as a process pool would. What they collect can be kept in a folder under the environment's
fingerprint. Memory: the collected texts, some 60 MB for an environment with torch and its friends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from ...core.errors import MaskwrightError
from ...core.files import write_bytes
from ...core.progress import progress
from ..streams import open_stream
from . import docstrings
from .docstrings import Piece, extract
from .environment import SourceModule, environment_fingerprint, find_modules, find_readmes

__all__ = ["DocModule", "load_modules", "scan_modules"]

_CHUNK = 48
_MIN_MODULES_FOR_WORKERS = 200


@dataclass(frozen=True, slots=True)
class DocModule:
    """The documentation found in one module, README or language topic.

    Args:
        package: normalised name of the distribution, or `stdlib`.
        name: the module's dotted name; `readme/package` for a README, `module/topic` for a topic.
        pieces: names and texts in source order; None if the file could not be parsed.
    """

    package: str
    name: str
    pieces: tuple[Piece, ...] | None


def load_modules(cache_folder: Path | None = None) -> list[DocModule]:
    """The documentation of this environment, read from the cache if it is there.

    Args:
        cache_folder: where to keep what was collected; None collects anew and keeps nothing.

    Returns:
        Modules in a fixed order.
    """
    if cache_folder is None:
        return scan_modules()
    path = cache_folder / f"local-docs-{environment_fingerprint()}.jsonl.zst"
    if path.exists():
        with open_stream(path) as stream:
            return [_from_row(json.loads(line)) for line in stream]
    modules = scan_modules()
    lines = [json.dumps([module.package, module.name, module.pieces]) + "\n" for module in modules]
    data = zstandard.ZstdCompressor(level=3, write_checksum=True).compress("".join(lines).encode())
    write_bytes(path, data)
    return modules


def scan_modules(
    site_folders: list[str] | None = None, stdlib: str | None = None, num_workers: int | None = None
) -> list[DocModule]:
    """Collect the documentation of an environment.

    Args:
        site_folders: where packages are installed; None takes this interpreter's own.
        stdlib: folder of the standard library; None takes this interpreter's own.
        num_workers: helper processes; 0 works in this process; None takes one for each core.

    Returns:
        Modules sorted by package and name, then READMEs by package. The same for any `num_workers`.

    Raises:
        MaskwrightError: a helper process died.
    """
    sources = find_modules(site_folders, stdlib)
    if num_workers is None:
        few = len(sources) < _MIN_MODULES_FOR_WORKERS or not sys.executable
        num_workers = 0 if few else _num_cores()
    modules: list[DocModule] = []
    with progress("local docs", len(sources), "modules") as advance:
        for source, pieces in zip(sources, _extract_all(sources, num_workers), strict=True):
            modules.extend(_doc_modules(source, pieces))
            advance(1)
    readmes = find_readmes(site_folders)
    return modules + [DocModule(name, f"readme/{name}", (("", text),)) for name, text in readmes]


def _doc_modules(source: SourceModule, pieces: tuple[Piece, ...] | None) -> Iterator[DocModule]:
    if source.name == "pydoc_data.topics" and pieces:
        for name, text in pieces:
            yield DocModule(source.package, f"{source.name}/{name}", (("", text),))
    elif pieces is None or pieces:
        yield DocModule(source.package, source.name, pieces)


def _extract_all(sources: Sequence[SourceModule], num_workers: int) -> Iterator[tuple[Piece, ...] | None]:
    paths = [str(source.path) for source in sources]
    if num_workers == 0:
        yield from (_as_pieces(extract(path)) for path in paths)
        return
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with _helpers(num_workers) as idle:
        threads = ThreadPoolExecutor(num_workers)
        try:
            for results in threads.map(lambda chunk: _ask(idle, chunk), chunks):
                yield from map(_as_pieces, results)
        finally:
            threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what is left to read


@contextlib.contextmanager
def _helpers(count: int) -> Iterator[queue.SimpleQueue[subprocess.Popen[str]]]:
    """Start helper processes, and end them with the block."""
    # -P keeps our folder, whose file names may equal standard ones, out of the helper's path.
    command = [sys.executable, "-P", "-S", docstrings.__file__]
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(helper)
            idle.put(helper)
        yield idle


def _ask(idle: queue.SimpleQueue[subprocess.Popen[str]], paths: list[str]) -> list[Any]:
    helper = idle.get()
    assert helper.stdin is not None
    assert helper.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            helper.stdin.write(json.dumps(paths) + "\n")
            helper.stdin.flush()
        answer = helper.stdout.readline()
    finally:
        idle.put(helper)
    if not answer.endswith("\n"):
        code = helper.wait()
        raise MaskwrightError(
            f"the process that reads docstrings died (exit status {code}) on one of {paths[0]} "
            f"and the {len(paths) - 1} files after it; run the same command again"
        )
    results: list[Any] = json.loads(answer)
    return results


def _from_row(row: list[Any]) -> DocModule:
    package, name, pieces = row
    return DocModule(package, name, _as_pieces(pieces))


def _as_pieces(pieces: Any) -> tuple[Piece, ...] | None:
    return None if pieces is None else tuple((name, text) for name, text in pieces)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
