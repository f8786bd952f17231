"""A small make-believe environment: a standard library folder and a few installed packages."""

from __future__ import annotations

from pathlib import Path

README = """\
[![badge](https://x/y.svg)](https://x)
<p align="center">picture</p>

# Alpha

Alpha does things to words.
"""


def install(site: Path, name: str, version: str, files: dict[str, str], readme: str = "") -> None:
    """Put a package into a folder, with the metadata that an installer would write."""
    for label, text in files.items():
        path = site / label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n{readme}")
    (info / "RECORD").write_text("".join(f"{label},,\n" for label in files) + f"{info.name}/METADATA,,\n")


def make_environment(folder: Path) -> tuple[list[str], str]:
    """Build it; returns the site folders and the standard library's folder."""
    site, stdlib = folder / "site", folder / "stdlib"
    install(
        site,
        "Alpha_Kit",
        "1.0",
        {
            "alpha/__init__.py": '"""Alpha is a kit."""',
            "alpha/core.py": '"""The core."""\ndef f():\n    """Does f."""\n',
            "alpha/broken.py": "def (",
            "alpha/silent.py": "x = 1",
            "alpha/tests/test_core.py": '"""A test."""',
            "alpha/_vendor/beta.py": '"""Vendored."""',
            "alpha/conftest.py": '"""Fixtures."""',
            "alpha/data-file.py": '"""No module."""',
            "../../bin/script.py": '"""A script."""',
        },
        README,
    )
    install(site, "beta", "2.0", {"beta.py": '"""Beta."""\ndef f():\n    """Does f."""\n'})
    install(site, "maskwright", "0.1", {"maskwright/x.py": '"""Our own."""'}, "Our own README text.")
    (site / "stray.py").write_text('"""Recorded nowhere."""')
    for label, text in {
        "json/decoder.py": '"""Decodes JSON."""',
        "test/test_json.py": '"""A test."""',
        "site-packages/other.py": '"""Not ours."""',
        "pydoc_data/topics.py": "topics = {'if': 'The if statement', 'for': 'The for statement'}",
    }.items():
        path = stdlib / label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [str(site)], str(stdlib)
