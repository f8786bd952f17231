"""The kernels of other devices: which is taken when, and the same values as on the CPU."""

import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

from maskwright.model import fused_attention as module
from maskwright.model.fused_attention import Packing, attend, choose_kernel, fused_attention, pack
from maskwright.model.layout import Layout

HALF = (torch.float16, torch.bfloat16)
MIXES = [[1], [7], [8, 8, 8], [1, 1], [5, 3, 9, 1, 16, 8], [17, 2, 17, 2], [40, 1]]


def random_qkv(lengths, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 3 * width, dtype=dtype, generator=generator)


def one_by_one(qkv_ND, lengths, heads):
    outputs = []
    for part in qkv_ND.split(lengths):
        query, key, value = part.view(len(part), heads, 3, -1).permute(2, 1, 0, 3)
        shares = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, -1)
        outputs.append((shares @ value).transpose(0, 1).reshape(len(part), -1))
    return torch.cat(outputs)


def with_gradient(function, qkv_ND):
    leaf = qkv_ND.clone().requires_grad_()
    out = function(leaf)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


def on_cuda(lengths):
    """A layout that says it is on a GPU; nothing is made there as long as nobody asks."""
    layout = Layout(lengths)
    layout.device = torch.device("cuda", 0)
    return layout


@pytest.mark.parametrize("lengths", MIXES, ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_values_and_gradients_equal_a_plain_softmax(lengths, heads):
    qkv = random_qkv(lengths, 8)
    ours = with_gradient(lambda x: fused_attention(x, Layout(lengths), heads, 0.0), qkv)
    expected = with_gradient(lambda x: one_by_one(x, lengths, heads), qkv)
    assert (ours[0] - expected[0]).abs().max() < 1e-13
    assert (ours[1] - expected[1]).abs().max() < 1e-12


@pytest.mark.parametrize("lengths", [[6, 6, 6], [5, 13, 7]], ids=str)
def test_a_sequence_changes_nothing_in_another(lengths):
    qkv = random_qkv(lengths, 8, dtype=torch.float32)
    changed = qkv.clone()
    changed[: lengths[0]] = 1e3 * random_qkv(lengths[:1], 8, seed=4, dtype=torch.float32)
    before, after = (
        with_gradient(lambda x: fused_attention(x, Layout(lengths), 2, 0.0), x) for x in (qkv, changed)
    )
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[lengths[0] :], other[lengths[0] :])
        assert not torch.equal(one[: lengths[0]], other[: lengths[0]])


@pytest.mark.parametrize("lengths", [[16, 16], [16, 9, 16]], ids=str)
def test_dropout_keeps_the_mean_and_changes_the_values(lengths):
    qkv = random_qkv(lengths, 4)
    layout = Layout(lengths)
    torch.manual_seed(0)
    draws = torch.stack([fused_attention(qkv, layout, 1, 0.25) for _ in range(2000)])
    whole = fused_attention(qkv, layout, 1, 0.0)
    error = (draws.mean(0) - whole).abs() / (draws.std(0) / len(draws) ** 0.5)
    assert error.max() < 5
    assert draws.std(0).min() > 0


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_equal_lengths_on_hopper_take_cudnn(monkeypatch, dtype):
    monkeypatch.setattr(module, "_is_hopper", lambda device: True)
    assert choose_kernel(on_cuda([8, 8]), dtype, 64) == "cudnn"
    assert choose_kernel(on_cuda([8, 8]), torch.float32, 64) == "dense"
    assert choose_kernel(on_cuda([8, 8]), dtype, 60) == "dense"
    assert choose_kernel(on_cuda([8, 8]), dtype, 136) == "dense"
    assert choose_kernel(on_cuda([1, 1]), dtype, 64) == "dense"
    monkeypatch.setattr(module, "_is_hopper", lambda device: False)
    assert choose_kernel(on_cuda([8, 8]), dtype, 64) == "dense"


def test_unequal_lengths_take_flash_where_it_can():
    for dtype in HALF:
        assert choose_kernel(on_cuda([8, 9]), dtype, 64) == "flash"
        assert choose_kernel(on_cuda([8, 9]), dtype, 36) == "padded"
        assert choose_kernel(on_cuda([8, 9]), dtype, 264) == "padded"
        assert choose_kernel(Layout([8, 9]), dtype, 64) == "padded"
    assert choose_kernel(on_cuda([8, 9]), torch.float32, 64) == "padded"
    assert choose_kernel(Layout([8, 8]), torch.bfloat16, 64) == "dense"


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), True), ((8, 0), False), ((10, 0), False)])
def test_hopper_is_known_by_its_capability(monkeypatch, capability, expected):
    module._is_hopper.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert module._is_hopper(torch.device("cuda", 0)) is expected
    module._is_hopper.cache_clear()
    assert module._is_hopper(torch.device("cpu")) is False


def test_the_layers_of_a_pass_share_a_packing_that_goes_with_the_layout():
    layout = Layout([4, 7])
    first = pack(layout, torch.float32, 8)
    assert pack(layout, torch.float32, 8) is first
    assert first.mask.view(2, 7).sum(1).tolist() == [4, 7]
    watched = weakref.ref(first)
    del layout, first
    gc.collect()
    assert watched() is None


def test_flash_knows_where_sequences_begin_and_rounds_the_longest_up():
    made = module._make(Layout([130, 7, 1]), "flash")
    assert made.cumulative.dtype == torch.int32
    assert made.cumulative.tolist() == [0, 130, 137, 138]
    assert (made.longest, made.rows) == (256, 0)


def recorder(calls):
    """In the place of a kernel: a softmax over each sequence, and what it was called with."""

    def kernel(query, key, value, ends, ends_again, longest, longest_again, *rest):
        assert ends is ends_again
        assert longest == longest_again
        calls.append((longest, *rest))
        lengths = torch.diff(ends).tolist()
        packed = torch.stack([query, key, value], 2).flatten(1)
        return one_by_one(packed, lengths, query.shape[1]).view_as(query)

    return kernel


def test_flash_gets_the_tokens_as_they_lie(monkeypatch):
    lengths, calls = [5, 3, 9], []
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", recorder(calls))
    packing = module._make(Layout(lengths), "flash")
    qkv = random_qkv(lengths, 8)
    ours = with_gradient(lambda x: attend(x, packing, 2, 0.0), qkv)
    expected = with_gradient(lambda x: one_by_one(x, lengths, 2), qkv)
    assert (ours[0] - expected[0]).abs().max() < 1e-13
    assert (ours[1] - expected[1]).abs().max() < 1e-12
    assert calls == [(128,)]


# The framework's own shape rules: the private operators take what they are given, with their gradients.
@pytest.mark.parametrize("p", [0.0, 0.125])
@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
def test_the_operators_take_these_arguments(kernel, p):
    ends = torch.empty(4, dtype=torch.int32, device="meta")
    packing = Packing(kernel, 3, 8, cumulative=ends)
    qkv = torch.empty(24, 3 * 32, dtype=torch.bfloat16, device="meta", requires_grad=True)
    out = attend(qkv, packing, 4, p)
    assert (out.shape, out.dtype) == ((24, 32), torch.bfloat16)
    out.sum().backward()
    assert qkv.grad.shape == qkv.shape


@pytest.mark.parametrize(("p", "by_cudnn"), [(0.0, True), (0.125, True), (0.1, False)])
def test_cudnn_is_left_out_where_it_would_round_the_share(monkeypatch, p, by_cudnn):
    taken = []
    own = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: taken.append(k["dropout_p"]) or own(*a, **k)
    )
    qkv = torch.empty(16, 3 * 32, dtype=torch.bfloat16, device="meta")
    assert attend(qkv, Packing("cudnn", 2, 8), 4, p).shape == (16, 32)
    assert taken == ([] if by_cudnn else [p])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("lengths", [[64, 64, 64], [64, 17, 130, 1]], ids=str)
def test_gpu_kernels_equal_a_plain_softmax(lengths, dtype):
    qkv = random_qkv(lengths, 128).to(dtype)
    expected = with_gradient(lambda x: one_by_one(x, lengths, 2), qkv.double())
    on_gpu = qkv.cuda()
    ours = with_gradient(lambda x: fused_attention(x, Layout(lengths, "cuda"), 2, 0.0), on_gpu)
    # Three times the error of the same steps in that precision on the CPU, at least.
    limit = 3 * torch.finfo(dtype).eps
    for one, other in zip(ours, expected, strict=True):
        assert (one.cpu().double() - other).norm() < limit * other.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("lengths", [[64, 64], [64, 17, 130]], ids=str)
def test_gpu_dropout_keeps_the_mean(lengths):
    qkv, layout = random_qkv(lengths, 64).to("cuda", torch.bfloat16), Layout(lengths, "cuda")
    draws = torch.stack([fused_attention(qkv, layout, 1, 0.1).float() for _ in range(2000)])
    whole = fused_attention(qkv, layout, 1, 0.0).float()
    assert (draws.mean(0) - whole).norm() < 0.02 * whole.norm()
    assert draws.std(0).mean() > 0.01 * whole.abs().mean()
