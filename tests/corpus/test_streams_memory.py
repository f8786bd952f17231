"""Documents of a hundred megabytes pass in bounded memory; measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAX_RESIDENT_BYTES = 1_500_000_000
WORDS = b"some words of a very long document without any end, "
NUM_BYTES = 100_000_000

PROGRAM = """
import resource, sys
from pathlib import Path
from maskwright.corpus import Audit
from maskwright.corpus.normalise import normalise_step
from maskwright.corpus.readers import READERS, ReadOptions
from maskwright.corpus.sources import find_files

(file,) = find_files([sys.argv[1]])
step, count = normalise_step(), 0
for document in READERS[sys.argv[2]](file, ReadOptions("s"), Audit()):
    document = step(document)
    count += len(document.text)
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_json_line(path):
    text = WORDS * (NUM_BYTES // len(WORDS))
    path.write_bytes(b'{"text": "' + "😀".encode() + text + b'"}\n{"text": "next"}\n')
    return 1 + len(text.rstrip()) + 4


def write_text(path):
    line = WORDS * 20
    text = "😀".encode() + (line.rstrip() + b"\n") * (NUM_BYTES // len(line))
    path.write_bytes(text)
    return len(text.decode().rstrip())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format_name", "write"), [("x.jsonl", "jsonl", write_json_line), ("x.txt", "text", write_text)]
)
def test_a_document_of_100_megabytes_passes(tmp_path, name, format_name, write):
    path = tmp_path / name
    count = write(path)
    command = [sys.executable, "-c", PROGRAM, str(path), format_name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    characters, peak = map(int, done.stdout.split())
    assert characters == count
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"{name}: peak {peak * unit / 1e6:.0f} MB")
    assert peak * unit < MAX_RESIDENT_BYTES
    path.unlink()
