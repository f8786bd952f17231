"""How the code is laid out: small files and functions, exported names that exist and are documented."""

import ast
import importlib
import inspect
import re
import sys
import tomllib

import pytest
from house_files import ROOT, SOURCES, project_files

CODE = [path for path in project_files() if path.suffix == ".py"]
# All that an `__init__.py` holds that does nothing but hand names on.
HANDING_ON = (ast.Expr, ast.ImportFrom, ast.Assign)
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70


def name_of(path):
    return str(path.relative_to(ROOT))


def module_name(path):
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_and_functions_are_small(path):
    text = path.read_text("utf-8")
    assert text.count("\n") < MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
            assert lines < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_exported_names_exist_once_and_are_documented(path):
    module = importlib.import_module(module_name(path))
    assert module.__doc__
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for name in exported:
        value = getattr(module, name)
        ours = getattr(value, "__module__", "").startswith("maskwright")
        if (inspect.isclass(value) or inspect.isfunction(value)) and ours:
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), f"{name} has the docstring of a dataclass"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_modules_say_what_they_export(path):
    tree = ast.parse(path.read_text("utf-8"))
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    exported = getattr(importlib.import_module(module_name(path)), "__all__", None)
    if any(not node.name.startswith("_") for node in defined):
        assert exported, "has public names and no __all__"
    if path.name == "__init__.py" and all(isinstance(node, HANDING_ON) for node in tree.body):
        handed_on = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.level
            for alias in node.names
        }
        assert handed_on <= set(exported or ())


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_public_methods_are_documented(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for child in node.body:
                if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                    assert ast.get_docstring(child), f"{node.name}.{child.name}"


def test_no_file_names_a_machine_or_a_mirror():
    # Put together here, so that this file does not hold what it looks for.
    machine = ["/" + name + "/" for name in ("work", "root", "home", "Users", "opt")] + ["/" + "tmp"]
    hosts = ["py" + "pi.org", "python" + "hosted", "index" + "-url", "find" + "-links"]
    for path in project_files():
        if path.suffix in {".png", ".ico"} or path.name == "LICENSE":
            continue
        text = path.read_text("utf-8", errors="replace")
        for mark in machine:
            found = re.search(rf"(?<![\w.<*]){re.escape(mark)}", text)
            assert not found, f"{name_of(path)} names {mark}"
        for mark in hosts:
            assert mark not in text, f"{name_of(path)} names {mark}"


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = re.findall(r"--editable '\.\[([a-z0-9,]+)\]'", (ROOT / "Makefile").read_text())
    installed = [name for group in groups for name in group.split(",")]
    extras = project["optional-dependencies"]
    # These need releases that other pins exclude, or a GPU; they are the user's to install.
    assert set(extras) - set(installed) == {"fp8", "gs", "track"}
    wanted = [*project["dependencies"], *(item for name in installed for item in extras[name])]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
        assert match, f"{line!r} is no plain pin"
        pins[canonical(match[1])] = match[2]
    assert len(pins) == len(lines)
    for item in wanted:
        assert canonical(re.match(r"[A-Za-z0-9._-]+", item)[0]) in pins, item


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_is_pinned_that_nothing_needs():
    """Walk from our extras through what is installed; needs the environment that `make setup` makes."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ours = [project["dependencies"], *project["optional-dependencies"].values()]
    first = [Requirement(item) for items in ours for item in items]
    reached = {("maskwright", frozenset())}
    open_ones = [(requirement.name, frozenset(requirement.extras)) for requirement in first]
    while open_ones:
        name, extras = open_ones.pop()
        if (canonical(name), extras) in reached:
            continue
        reached.add((canonical(name), extras))
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another platform or version of Python
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                open_ones.append((requirement.name, frozenset(requirement.extras)))
    names = {name for name, _ in reached}
    pins = (line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines())
    spare = [pin for pin in pins if pin and not pin.startswith("#") and canonical(pin) not in names]
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the pins were made with Python 3.11")
    assert not spare


def test_continuous_integration_runs_the_contributors_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make check"
