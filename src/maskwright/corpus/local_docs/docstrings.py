"""Collect the docstrings of one Python source file, without importing it.

The file is parsed with `ast` and its statements are walked; expressions are not, since docstrings
are statements. This module uses the standard library alone, so that it can also run as a script in
a bare interpreter: `scan.py` starts several such and sends them paths, one JSON list a line.
Cost: about 15 MB of source a second and core, nearly all of it in the parser.
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence

__all__ = ["Piece", "extract"]

Piece = tuple[str, str]
"""The dotted name of a definition inside its module (empty for the module), and its docstring."""

_ADD_DOC_PREFIXES = ("add_docstr", "add_newdoc")
_TABLE_OF_TOPICS = "pydoc_data/topics.py"
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def extract(path: str) -> list[Piece] | None:
    """Docstrings of a source file, in source order, without their indentation.

    Also taken are texts given to `add_docstr` and `add_newdoc` calls, by which compiled libraries
    document themselves, and the topics of Python's language reference in `pydoc_data`.

    Args:
        path: a Python source file.

    Returns:
        The pieces, or None if the file cannot be read or parsed.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if path.replace("\\", "/").endswith(_TABLE_OF_TOPICS):
        return list(_topics(tree))
    pieces = [("", ast.get_docstring(tree)), *_walk(tree.body, "")]
    return [(name, text) for name, text in pieces if text]


def _walk(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, str | None]]:
    for node in body:
        if isinstance(node, _DEFINITIONS):
            name = f"{prefix}{node.name}"
            yield name, ast.get_docstring(node)
            yield from _walk(node.body, f"{name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "handlers", "orelse", "finalbody"):
                yield from _walk(getattr(node, part, ()), prefix)
        elif isinstance(node, ast.ExceptHandler):
            yield from _walk(node.body, prefix)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added_docs(node.value)


def _added_docs(call: ast.Call) -> Iterator[Piece]:
    name = getattr(call.func, "id", "") or getattr(call.func, "attr", "")
    if not str(name).startswith(_ADD_DOC_PREFIXES):
        return
    for argument in call.args:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
                yield f"line {node.lineno}", inspect.cleandoc(node.value)


def _topics(tree: ast.Module) -> Iterator[Piece]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield str(name), inspect.cleandoc(str(text))


def _serve() -> None:
    """Answer lists of paths on standard input with lists of results, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    gc.disable()  # a syntax tree has no cycles, and looking for them doubles the time
    for line in sys.stdin:
        sys.stdout.write(json.dumps([extract(path) for path in json.loads(line)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
