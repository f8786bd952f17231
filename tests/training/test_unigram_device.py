"""The unigram baseline by hand; devices and precisions; signals."""

import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

from maskwright.core.errors import ConfigError
from maskwright.training import device as device_module
from maskwright.training.device import measure_matrix_peak, resolve_device, resolve_precision
from maskwright.training.signals import stop_on_signals
from maskwright.training.unigram import unigram_loss


def test_the_baseline_by_hand():
    counts = np.array([100, 3, 0, 5])
    # Id 0 is special; the others have 4, 1 and 6 of 11 after adding one.
    labels = [np.array([1, 3]), np.array([], np.int64), np.array([2])]
    expected = -(math.log(4 / 11) + math.log(6 / 11) + math.log(1 / 11)) / 3
    assert unigram_loss(counts, labels, (0,)) == pytest.approx(expected)
    assert unigram_loss(counts, [], (0,)) == 0.0


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(
        ConfigError, match='"device" is "cuda", but torch sees no CUDA device; set device=cpu'
    ):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("native", [True, False])
def test_precisions(monkeypatch, native):
    monkeypatch.setattr(device_module, "native_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for device in ("cpu", "cuda"):
        assert resolve_precision("auto", device) == ("bf16" if native else "fp32")
        assert resolve_precision("fp32", device) == "fp32"
        assert resolve_precision("bf16", device) == "bf16"


def test_the_matrix_peak_is_a_rate():
    assert 1e8 < measure_matrix_peak("cpu", "fp32") < 1e15


def test_the_first_signal_is_a_request_and_the_second_stops():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as request:
        assert request.reason is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_every_watched_signal(number):
    with stop_on_signals() as request:
        os.kill(os.getpid(), number)
    assert request.reason == number.name


def test_other_threads_get_no_requests():
    found = []

    def work():
        with stop_on_signals() as request:
            found.append(request.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
