"""The documentation on this machine: real English, with no network, and a labelled task from it."""

from __future__ import annotations

from .documents import SPLITS, local_documents, split_of
from .environment import environment_fingerprint
from .scan import DocModule, load_modules, scan_modules
from .topics import topic_examples

__all__ = [
    "SPLITS",
    "DocModule",
    "environment_fingerprint",
    "load_modules",
    "local_documents",
    "scan_modules",
    "split_of",
    "topic_examples",
]
