"""What the tests of the house look at: the project's files, and the blocks in its Markdown."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
SOURCES = sorted((ROOT / "src" / "maskwright").rglob("*.py"))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@cache
def markdown_files() -> tuple[Path, ...]:
    """Every page that people read."""
    return (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))


@cache
def project_files() -> tuple[Path, ...]:
    """Files that belong to the project: tracked ones, and those that are about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = [name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        folders = ("src", "tests", "docs", "benchmarks", ".ci")
        names = [str(path) for folder in folders for path in (ROOT / folder).rglob("*")]
        names += [path.name for path in ROOT.iterdir()]
    files = (ROOT / name for name in sorted(set(names)))
    return tuple(path for path in files if path.is_file() and "__pycache__" not in path.parts)


def blocks(path: Path, *languages: str) -> list[str]:
    """Contents of the code blocks of some languages."""
    return [body for language, body in _BLOCK.findall(path.read_text("utf-8")) if language in languages]


def links(path: Path) -> list[str]:
    """Targets of the links and pictures of a page, in order."""
    return _LINK.findall(_BLOCK.sub("", path.read_text("utf-8")))


def shell_lines(path: Path) -> list[str]:
    """Lines of the shell blocks of a page, without comments."""
    lines = "".join(blocks(path, "bash", "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def commands(path: Path, program: str) -> Iterator[list[str]]:
    """Arguments of every call of a program on a page, in shell blocks and between backquotes."""
    text = path.read_text("utf-8")
    inline = [code for code in _INLINE.findall(_BLOCK.sub("", text)) if code.startswith(program + " ")]
    for line in [*shell_lines(path), *inline]:
        for part in _parts(line):
            words = [word for word in part if not re.fullmatch(r"[A-Z_]+=\S+", word)]  # environment variables
            if words and words[0] == program:
                yield words[1:]


def _parts(line: str) -> Iterator[list[str]]:
    """The commands of a line, cut at pipes and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in {"|", "||", "&&", ";", "&"}:
            yield words
            words = []
        else:
            words.append(word)
    yield words
