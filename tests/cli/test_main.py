"""The entry point: exit codes, errors as one line, and what is imported when."""

import json
import logging
import subprocess
import sys

import pytest

import maskwright
from maskwright.cli import main as main_module

COMMANDS = [
    *("demo", "doctor", "evaluate", "export", "finetune", "import", "inspect", "predict", "prepare"),
    *("launch", "monitor", "pretrain"),
]


def python(code, *arguments, **options):
    """Run some code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, **options
    )


def modules_after(code):
    result = python(f"import sys\n{code}\nprint(*sys.modules)")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


class TestImports:
    """Heavy libraries wait until they are needed."""

    heavy = ("torch", "transformers", "sklearn", "scipy", "numpy", "tokenizers", "rich")

    def test_the_package(self):
        assert not modules_after("import maskwright; maskwright.MaskwrightError").intersection(self.heavy)

    def test_the_verbs(self):
        found = modules_after("import maskwright; maskwright.prepare; maskwright.load")
        assert not found.intersection({"torch", "transformers"})

    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["pretrain", "--help"], ["trian"]])
    def test_the_command_line(self, arguments):
        code = f"""
import sys
sys.argv = ["maskwright", *{arguments!r}]
from maskwright.cli.main import main
try:
    main()
except SystemExit:
    pass
"""
        assert not modules_after(code).intersection({"torch", "transformers", "sklearn", "scipy", "numpy"})

    def test_preparing_needs_no_torch(self, corpus_file, tmp_path):
        code = f"""
import maskwright
sources = [{{"path": {str(corpus_file)!r}}}]
maskwright.prepare(
    {{"corpus": {{"sources": sources}}, "tokenizer": {{"vocab_size": 300}}, "validation_share": 0.1}},
    output={str(tmp_path / "data")!r},
)
"""
        assert "torch" not in modules_after(code)


def test_the_installed_command(tmp_path):
    from pathlib import Path

    program = Path(sys.executable).with_name("maskwright")
    result = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, f"{maskwright.__version__}\n")
    result = subprocess.run([program, "inspect", tmp_path], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path}: holds no prepared data, run or model; check the path\n"


def test_help_names_every_command_and_the_exit_codes(command):
    text = command("--help").out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Exit codes: 0 done, 2 bad input, 3 interrupted and resumable, 1 our fault." in text
    for name in COMMANDS:
        result = command(name, "--help")
        assert result.code == 0
        assert result.out.startswith(f"Usage: maskwright {name}")


@pytest.fixture
def failing(command, monkeypatch, tmp_path):
    """Run `inspect` while it raises something."""

    def run(error, *arguments):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("maskwright.jobs.inspect.inspect_folder", fail)
        return command("inspect", tmp_path, *arguments)

    return run


class TestErrors:
    """What is raised inside a command, and how it ends."""

    def test_our_fault(self, failing):
        result = failing(KeyError("x"))
        assert result.code == 1
        assert result.out == ""
        assert result.err == (
            "error: internal: KeyError: 'x'; please report it, with MASKWRIGHT_DEBUG=1 for the traceback\n"
        )

    def test_a_traceback_on_request(self, failing, monkeypatch):
        monkeypatch.setenv("MASKWRIGHT_DEBUG", "1")
        result = failing(KeyError("x"))
        assert result.code == 1
        assert result.err.startswith("Traceback (most recent call last):")
        result = failing(maskwright.UserError("bad"))
        assert result.code == 2
        assert "Traceback" in result.err
        monkeypatch.setenv("MASKWRIGHT_DEBUG", "0")
        assert "Traceback" not in failing(KeyError("x")).err

    def test_bad_input_as_json(self, failing):
        result = failing(maskwright.UserError("bad"), "--json")
        assert result.code == 2
        assert result.json == {"error": "bad", "exit_code": 2}
        assert result.err == "error: bad\n"

    def test_interrupted(self, failing):
        result = failing(KeyboardInterrupt())
        assert result.code == 3
        said = "stopped; what was finished is kept, run the same command with --resume to go on"
        assert result.err == f"interrupted: {said}\n"
        assert failing(KeyboardInterrupt(), "--json").json == {"interrupted": said, "exit_code": 3}

    def test_the_demo_needs_no_flag_to_go_on(self, command, monkeypatch):
        def fail(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("maskwright.jobs.demo.run_demo", fail)
        result = command("demo")
        assert result.code == 3
        assert "run the same command again to go on" in result.err

    def test_the_end_of_the_input(self, failing):
        assert failing(EOFError("ended")).code == 1

    @pytest.mark.parametrize("number", [28, 5, 13])
    def test_storage_that_refuses_where_nobody_expected_it(self, failing, number):
        result = failing(OSError(number, "refused", "some/file"))
        assert result.code == 2
        assert result.err.startswith("error: some/file: ")
        assert "internal" not in result.err

    def test_another_refusal_is_our_fault(self, failing):
        assert failing(OSError(2, "No such file", "some/file")).code == 1

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ],
        ids=["python", "gpu", "cpu"],
    )
    def test_out_of_memory(self, failing, error):
        result = failing(error)
        assert result.code == 2
        assert result.err == "error: out of memory; lower the micro-batch or the model size\n"

    def test_an_unknown_log_level(self, command, monkeypatch, tmp_path):
        monkeypatch.setenv("MASKWRIGHT_LOG", "loud")
        logging.getLogger("maskwright").handlers.clear()
        result = command("inspect", tmp_path)
        assert result.code == 2
        assert result.err.startswith("error: MASKWRIGHT_LOG is 'LOUD', expected one of DEBUG, INFO")


def test_a_reader_that_goes_away(data_folder):
    """As in `maskwright inspect ... | head -1`."""
    code = """
import os, sys
sys.argv = ["maskwright", "inspect", sys.argv[1]]
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
from maskwright.cli.main import main
main()
"""
    result = python(code, str(data_folder))
    assert (result.returncode, result.stderr) == (0, "")


def test_sigterm_counts_as_an_interruption(data_folder):
    code = """
import os, signal, sys
import maskwright.jobs.inspect as jobs
jobs.inspect_folder = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["maskwright", "inspect", "--json", sys.argv[1]]
from maskwright.cli.main import main
main()
"""
    result = python(code, str(data_folder))
    assert result.returncode == 3
    assert json.loads(result.stdout.splitlines()[-1])["exit_code"] == 3


def test_every_command_is_a_verb_in_python():
    verbs = [name.rstrip("_") for name in maskwright.__all__]  # `import` is a word of Python's own
    # `predict` is a method of what `load` gives; `launch` starts processes of the command itself.
    only_commands = {"launch", "predict"}
    assert sorted(name for name in verbs if name in COMMANDS) == sorted(set(COMMANDS) - only_commands)
    assert callable(maskwright.load)
    assert dir(maskwright) == sorted(maskwright.__all__)
    with pytest.raises(AttributeError, match="module 'maskwright' has no attribute 'predcit'"):
        maskwright.predcit  # noqa: B018
    commands = main_module.app.registered_commands
    assert set(COMMANDS) == {command.name or command.callback.__name__ for command in commands}
