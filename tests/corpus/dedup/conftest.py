"""Files here are small and many; what survives a power cut is tested elsewhere."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
