"""What the benchmarks share: about the machine, a table, and where results go."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskwright.core.machine import describe_machine, library_versions

RESULTS = Path(__file__).parent / "results"
VERSIONS = ("maskwright", "torch", "transformers", "tokenizers", "gigatoken", "numpy")


def environment() -> dict[str, Any]:
    """Machine, versions and the command line."""
    return {
        "machine": describe_machine(),
        "versions": library_versions(VERSIONS),
        "command": " ".join(["python", *sys.argv]),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for reading as it is."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(str(c).ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def save(name: str, result: dict[str, Any], text: str) -> None:
    """Keep the numbers as JSON and the table as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    about = environment()
    machine = about["machine"]
    head = (
        f"# {name}\n\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB; "
        + ", ".join(f"{library} {version}" for library, version in about["versions"].items() if version)
        + f"\n\n    {about['command']}\n\n"
    )
    (RESULTS / f"{name}.json").write_text(json.dumps({**result, **about}, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(head + text + "\n")
    print(text)


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the option that every benchmark has."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--name", help="name of the result files; default: the benchmark's")
    return arguments
