from __future__ import annotations

import json
import subprocess
import sys

import pytest

from maskwright.corpus.local_docs import docstrings
from maskwright.corpus.local_docs.docstrings import extract

SOURCE = '''
"""Module text.

    Indented.
"""
import missing_package_that_is_never_imported

def function():
    """Function text."""
    def inner():
        "Inner text."
    return """no docstring"""

class Thing:
    """Class text."""
    async def method(self):
        """Method text."""

if True:
    try:
        def guarded(): "Guarded text."
    except ValueError:
        def fallback(): "Fallback text."
    finally:
        class Last: "Last text."
else:
    with open("x") as f:
        def other(): "Other text."

add_docstr(thing, r"""
    added(x) -> {y}

    Added text.
""".format(y=1))
module.add_newdoc("numpy", "name", """
    Newdoc text.
    """)
print("""
not a docstring""")
def bad_escape(): "back\\slash \\d"
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(SOURCE)
    return str(path)


def test_docstrings_come_in_source_order_without_indentation(source):
    assert extract(source) == [
        ("", "Module text.\n\nIndented."),
        ("function", "Function text."),
        ("function.inner", "Inner text."),
        ("Thing", "Class text."),
        ("Thing.method", "Method text."),
        ("guarded", "Guarded text."),
        ("fallback", "Fallback text."),
        ("Last", "Last text."),
        ("other", "Other text."),
        ("line 30", "added(x) -> {y}\n\nAdded text."),
        ("line 35", "Newdoc text."),
        ("bad_escape", "back\\slash \\d"),
    ]


def test_a_file_without_docstrings_has_no_pieces(tmp_path):
    path = tmp_path / "m.py"
    path.write_text("x = 1\ndef f(): return 2\n")
    assert extract(str(path)) == []


@pytest.mark.parametrize(
    "data", [b"def f(:\n", b"x = '\xff'\n", b"\x00", b"(" * 100_000, b"-" * 100_000 + b"1"]
)
def test_what_cannot_be_parsed_gives_nothing(tmp_path, data):
    path = tmp_path / "m.py"
    path.write_bytes(data)
    assert extract(str(path)) is None


def test_a_missing_file_gives_nothing(tmp_path):
    assert extract(str(tmp_path / "gone.py")) is None


def test_language_topics_are_texts_of_their_own(tmp_path):
    path = tmp_path / "pydoc_data" / "topics.py"
    path.parent.mkdir()
    path.write_text("topics = {'while': 'The while\\n  statement', 'if': 'The if statement'}\n")
    assert extract(str(path)) == [("if", "The if statement"), ("while", "The while\nstatement")]


def test_as_a_script_it_answers_line_by_line(source):
    questions = f"{json.dumps([source, 'gone.py'])}\n{json.dumps([])}\n"
    answer = subprocess.run(
        [sys.executable, "-P", "-S", docstrings.__file__],
        input=questions,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = map(json.loads, answer.stdout.splitlines())
    assert [tuple(piece) for piece in first[0]] == extract(source)
    assert first[1] is None
    assert second == []
    assert answer.stderr == ""
