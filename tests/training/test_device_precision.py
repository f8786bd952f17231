"""Precisions, the TF32 switch, and matrix rates of each precision."""

import pytest
import torch

from maskwright.core.errors import ConfigError
from maskwright.training import device as module
from maskwright.training.device import measure_matrix_peak, resolve_precision, set_tf32


@pytest.fixture
def small_products(monkeypatch):
    """Products as large as a test needs them, and no time to warm up."""
    own = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *sizes, **more: own(*(64 for _ in sizes), **more))
    monkeypatch.setattr(module, "_ROUNDS", 2)


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_of_the_cpu_has_a_rate(precision):
    assert measure_matrix_peak("cpu", precision) > 0


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize(("precision", "bits"), [("fp32", 32), ("bf16", 16), ("fp16", 16)])
def test_the_product_is_the_product_in_that_precision(precision, bits):
    left, right = torch.randn(64, 64), torch.randn(64, 64)
    product = module._product(left, right, precision)()
    assert product.dtype.itemsize * 8 == bits
    exact = left.double() @ right.double().t()
    assert (product.double() - exact).norm() < 8 * torch.finfo(product.dtype).eps * exact.norm()


@pytest.mark.usefixtures("small_products")
def test_a_product_that_the_device_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r'"fp8" is true, but the device is the cpu, .*; set fp8=false'):
        measure_matrix_peak("cpu", "fp8")
    with pytest.raises(ConfigError, match="\"precision\" is 'int4', expected one of fp32, bf16, fp16, fp8"):
        measure_matrix_peak("cpu", "int4")


def test_fp16_is_taken_when_asked_for_and_never_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert resolve_precision("fp16", "cuda") == resolve_precision("fp16", "cpu") == "fp16"
    # Emulated bf16 is slower than fp32.
    assert resolve_precision("auto", "cuda") == "fp32"


def test_tf32_is_for_cuda_alone(monkeypatch):
    said = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", said.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    set_tf32(True)
    assert said == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    set_tf32(True)
    set_tf32(False)
    assert said == ["high", "highest"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_rates_of_a_gpu_rise_as_numbers_get_smaller():
    rates = [measure_matrix_peak("cuda", precision) for precision in ("fp32", "bf16")]
    assert 1e12 < rates[0] < rates[1]
    if torch.cuda.get_device_capability() >= (9, 0):
        assert measure_matrix_peak("cuda", "fp8") > rates[1]
