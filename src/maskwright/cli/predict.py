"""`maskwright predict`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError, DataError
from .common import Json, print_json

__all__ = ["predict"]

_CHUNK = 512


def predict(
    model: Annotated[str, typer.Argument(metavar="FOLDER", help="Finished run or Hugging Face folder.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to answer for.")
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", "-i", help="File with one text a line.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write answers as JSON Lines.")
    ] = None,
    json: Json = False,
) -> None:
    """Classify texts, or fill <mask> in them: from the command line, a file, or a pipe."""
    from ..jobs.predict import load

    source = _texts(texts, input_file)
    predictor = load(model)
    answers: list[dict[str, Any]] = []
    for chunk in _chunks(source):
        for text, answer in zip(chunk, predictor.predict(chunk), strict=True):
            if json or output is not None:
                answers.append({"text": text, **answer})
            else:
                typer.echo(_line(text, answer))
    if output is not None:
        from ..core.files import write_text

        write_text(output, "".join(json_module.dumps(row, ensure_ascii=False) + "\n" for row in answers))
    if json:
        print_json({"model": model, "count": len(answers), "predictions": answers})


def _texts(texts: list[str] | None, input_file: Path | None) -> Iterable[str]:
    if texts and input_file is not None:
        raise ConfigError("predict: both texts and --input were given; choose one")
    if texts:
        return texts
    if input_file is not None:
        from ..core.files import read_bytes

        return _lines(read_bytes(input_file).splitlines(), str(input_file))
    if sys.stdin.isatty():
        raise ConfigError("predict: no text was given; write it after the folder, use --input, or pipe it in")
    return _lines(sys.stdin.buffer, "standard input")


def _lines(lines: Iterable[bytes], place: str) -> Iterator[str]:
    found = False
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}:{number}: is not UTF-8 ({error.reason}); convert the text to UTF-8"
            ) from None
        if text:
            found = True
            yield text
    if not found:
        raise DataError(f"{place}: holds no text; give one text a line")


def _chunks(source: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(source)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _line(text: str, answer: dict[str, Any]) -> str:
    if "label" in answer:
        return f"{answer['label']}\t{answer['probability']:.4f}\t{text}"
    fills = (
        "  ".join(f"{fill['token'].strip()} {fill['probability']:.3f}" for fill in place)
        for place in answer["fills"]
    )
    return f"{text}\t" + "\t".join(fills)
