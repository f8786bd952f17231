"""What is installed: source files and README texts of the standard library and the packages.

Packages are found through their metadata (`RECORD`), not by looking into folders, so stray files
do not count and an environment is named by its list of packages and versions. Packages installed
in editable mode list no files and are therefore left out, as is Maskwright itself.
"""

from __future__ import annotations

import csv
import platform
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from ...core.fingerprint import fingerprint

__all__ = ["STDLIB", "SourceModule", "environment_fingerprint", "find_modules", "find_readmes"]

STDLIB = "stdlib"

# Raised whenever the same environment gives other texts.
_RULES_VERSION = 1
_OWN_NAME = "maskwright"
_SKIPPED_FOLDERS = frozenset(
    {
        *("test", "tests", "testing", "_testing", "test_utils", "idle_test", "turtledemo"),
        *("_vendor", "_vendored", "vendor", "vendored", "_vendored_packages", "extern", "externals"),
        *("third_party", "thirdparty", "_thirdparty", "array_api_compat", "array_api_extra"),
        *("site-packages", "dist-packages", "__pycache__", "lib2to3", "ensurepip"),
    }
)
_SKIPPED_FILES = re.compile(r"test_.*|.*_test|conftest|_version|.*_pb2|.*_pb2_grpc")
_MARKUP_LINE = re.compile(r"\s*(\[?!\[|<|\.\. (image|\|)|:(target|alt):|\[[^]]+\]: |\S+$)")


@dataclass(frozen=True, slots=True, order=True)
class SourceModule:
    """A Python source file of the environment.

    Args:
        package: normalised name of the distribution it belongs to, or `stdlib`.
        name: dotted name of the module.
        path: where the file is.
    """

    package: str
    name: str
    path: Path


def environment_fingerprint(site_folders: list[str] | None = None) -> str:
    """Name this environment by its Python version and its packages with their versions.

    Args:
        site_folders: where packages are installed; None takes this interpreter's own.

    Returns:
        32 hexadecimal digits.
    """
    packages = [[name, found.version] for name, found in _packages(site_folders).items()]
    return fingerprint({"rules": _RULES_VERSION, "python": platform.python_version(), "packages": packages})


def find_modules(site_folders: list[str] | None = None, stdlib: str | None = None) -> list[SourceModule]:
    """List the source files to read, sorted by package and module.

    Test suites, vendored copies of other packages and generated protocol files are left out.

    Args:
        site_folders: where packages are installed; None takes this interpreter's own.
        stdlib: folder of the standard library; None takes this interpreter's own.
    """
    folder = Path(stdlib or sysconfig.get_path("stdlib"))
    found: dict[str, SourceModule] = {}
    for path in folder.rglob("*.py"):
        name = _module_name(PurePosixPath(path.relative_to(folder).as_posix()))
        if name:
            found[name] = SourceModule(STDLIB, name, path)
    for package, distribution in _packages(site_folders).items():
        for file in _recorded_files(distribution):
            name = _module_name(file)
            if name and name not in found:
                found[name] = SourceModule(package, name, Path(str(distribution.locate_file(str(file)))))
    return sorted(found.values())


def find_readmes(site_folders: list[str] | None = None) -> list[tuple[str, str]]:
    """Package names and the prose of their README, sorted; lines of badges and markup are left out."""
    readmes = []
    for package, distribution in _packages(site_folders).items():
        metadata = distribution.metadata
        text = str(metadata["Description"]) if "Description" in metadata else ""
        lines = [line for line in text.splitlines() if not line.strip() or not _MARKUP_LINE.match(line)]
        readmes.append((package, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()))
    return [(package, text) for package, text in readmes if text]


def _packages(site_folders: list[str] | None) -> dict[str, Distribution]:
    """Distributions by normalised name, sorted; of two with one name the first found counts."""
    folders = site_folders or sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=folders):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name and name != _OWN_NAME:
            found.setdefault(name, distribution)
    return dict(sorted(found.items()))


def _recorded_files(distribution: Distribution) -> Iterator[PurePosixPath]:
    record = distribution.read_text("RECORD") or ""
    for row in csv.reader(record.splitlines()):
        if row and row[0].endswith(".py"):
            yield PurePosixPath(row[0])


def _module_name(file: PurePosixPath) -> str | None:
    """The dotted name of a file below its root, or None if it is not to be read."""
    parts = [*file.parts[:-1], file.stem]
    if parts[-1] == "__init__":
        parts.pop()
    regular = all(part.isidentifier() for part in parts)
    if (
        not parts
        or not regular
        or _SKIPPED_FOLDERS.intersection(parts)
        or _SKIPPED_FILES.fullmatch(parts[-1])
    ):
        return None
    return ".".join(parts)
