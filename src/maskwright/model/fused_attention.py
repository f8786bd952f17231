"""Attention by the framework's fused kernels, for devices other than the CPU.

Legend: B sequences, S longest of them, N tokens laid end to end, D hidden, H heads, E head width.
Queries, keys and values come head by head: E values of each for the first head, then for the second.

Which kernel depends on lengths, type and device, and is decided once for a layout, outside of
anything that is compiled:

- `cudnn`: sequences of one length in fp16 or bf16 on Hopper, where cuDNN's kernel is about twice as
  fast as the one that the framework takes by itself. It rounds the share that is dropped to
  sixteenths, so it is left out where that changes anything;
- `dense`: sequences of one length elsewhere, by `scaled_dot_product_attention`;
- `flash`: unequal lengths in fp16 or bf16 on CUDA; FlashAttention on the tokens as they lie;
- `padded`: unequal lengths elsewhere: side by side with a mask, which costs the padding.

The framework's `varlen_attn` has no dropout; with dropout the operator beneath it is called, which
is private to the framework and has kept its leading arguments since version 2.5.

Source: Dao et al. 2022 (arXiv 2205.14135) and Dao 2023 (arXiv 2307.08691) for the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import Layout

__all__ = ["Kernel", "Packing", "attend", "choose_kernel", "fused_attention", "pack"]

Kernel = Literal["cudnn", "dense", "flash", "padded"]
_HALF = (torch.float16, torch.bfloat16)
_HOPPER = 9
# Both kernels read eight values at a time; wider heads have no cuDNN kernel for training everywhere.
_HEAD_STEP, _CUDNN_WIDEST, _FLASH_WIDEST = 8, 128, 256
_CUDNN_SHARES = 16
# The longest sequence decides only how many blocks are launched; rounded up, few values occur.
_LONGEST_STEP = 128


@dataclass(frozen=True)
class Packing:
    """What a kernel needs to know of a layout: small numbers and tensors, nothing else.

    Attributes:
        kernel: which kernel.
        rows: B for `cudnn`, `dense` and `padded`; 0 for `flash`.
        longest: S; for `flash` rounded up.
        cumulative: where sequences begin and the last one ends; int32 of shape (B + 1,); `flash` only.
        index: place of each token in the flattened (B, S); int64 of shape (N,); `padded` only.
        mask: which keys are real; bool of shape (B, 1, 1, S); `padded` only.
    """

    kernel: Kernel
    rows: int
    longest: int
    cumulative: Tensor | None = None
    index: Tensor | None = None
    mask: Tensor | None = None


@lru_cache(maxsize=16)
def _is_hopper(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device)[0] == _HOPPER


def choose_kernel(layout: Layout, dtype: torch.dtype, head_size: int) -> Kernel:
    """Which kernel is the fastest that can do it.

    Args:
        layout: lengths of the sequences, and the device.
        dtype: type of queries, keys and values.
        head_size: E.

    Returns:
        Name of the kernel.
    """
    half = layout.device.type == "cuda" and dtype in _HALF and head_size % _HEAD_STEP == 0
    if not layout.uniform:
        return "flash" if half and head_size <= _FLASH_WIDEST else "padded"
    # cuDNN has no kernel for sequences of one token.
    fits = half and head_size <= _CUDNN_WIDEST and layout.longest > 1
    return "cudnn" if fits and _is_hopper(layout.device) else "dense"


# Layers of one pass share a layout, and what is made from it goes when the layout goes.
_PACKINGS: WeakKeyDictionary[Layout, dict[Kernel, Packing]] = WeakKeyDictionary()


def pack(layout: Layout, dtype: torch.dtype, head_size: int) -> Packing:
    """What the layers of one pass need to know of a layout; made once for all of them.

    Args:
        layout: lengths of the sequences.
        dtype: type of queries, keys and values.
        head_size: E.
    """
    kernel = choose_kernel(layout, dtype, head_size)
    packings = _PACKINGS.setdefault(layout, {})
    if kernel not in packings:
        packings[kernel] = _make(layout, kernel)
    return packings[kernel]


def _make(layout: Layout, kernel: Kernel) -> Packing:
    rows, longest = len(layout.lengths), layout.longest
    if kernel in ("cudnn", "dense"):
        return Packing(kernel, rows, longest)
    if kernel == "flash":
        ends = torch.tensor([*layout.starts, layout.num_tokens], dtype=torch.int32, device=layout.device)
        return Packing(kernel, 0, -(-longest // _LONGEST_STEP) * _LONGEST_STEP, cumulative=ends)
    lengths = torch.tensor(layout.lengths, device=layout.device)
    mask = (torch.arange(longest, device=layout.device) < lengths[:, None])[:, None, None, :]
    return Packing(kernel, rows, longest, index=layout.padded_index, mask=mask)


def fused_attention(qkv_ND: Tensor, layout: Layout, num_heads: int, p: float) -> Tensor:
    """Attend within each sequence.

    Args:
        qkv_ND: queries, keys and values, head by head, of shape (N, 3 × D).
        layout: lengths of the sequences.
        num_heads: H.
        p: share of attention probabilities to drop, by the device's own generator.

    Returns:
        Tensor of shape (N, D).
    """
    head_size = qkv_ND.shape[1] // (3 * num_heads)
    return attend(qkv_ND, pack(layout, qkv_ND.dtype, head_size), num_heads, p)


def attend(qkv_ND: Tensor, packing: Packing, num_heads: int, p: float) -> Tensor:
    """`fused_attention` after everything is decided; may be compiled.

    Args:
        qkv_ND: queries, keys and values, head by head, of shape (N, 3 × D).
        packing: from `pack`.
        num_heads: H.
        p: share of attention probabilities to drop.

    Returns:
        Tensor of shape (N, D).
    """
    if packing.kernel == "flash":
        return _flash(qkv_ND, packing, num_heads, p)
    if packing.kernel == "padded":
        return _padded(qkv_ND, packing, num_heads, p)
    query, key, value = _side_by_side(qkv_ND, packing, num_heads)
    if packing.kernel == "cudnn" and (p * _CUDNN_SHARES).is_integer():
        # No bias; the sums of exponentials are kept for the backward pass; not causal; no debugging.
        arguments = (query, key, value, None, True, p, False, False)
        out: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(*arguments)[0]
    else:
        out = F.scaled_dot_product_attention(query, key, value, dropout_p=p)
    return out.transpose(1, 2).reshape(packing.rows * packing.longest, -1)


def _side_by_side(tokens: Tensor, packing: Packing, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of shape (B, H, S, E); their gradients are laid together in one copy."""
    query, key, value = tokens.view(packing.rows, packing.longest, num_heads, 3, -1).unbind(3)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _padded(qkv_ND: Tensor, packing: Packing, num_heads: int, p: float) -> Tensor:
    assert packing.index is not None
    size = packing.rows * packing.longest
    padded = qkv_ND.new_zeros(size, qkv_ND.shape[1]).index_copy(0, packing.index, qkv_ND)
    query, key, value = _side_by_side(padded, packing, num_heads)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=packing.mask, dropout_p=p)
    return out.transpose(1, 2).reshape(size, -1).index_select(0, packing.index)


def _flash(qkv_ND: Tensor, packing: Packing, num_heads: int, p: float) -> Tensor:
    ends, longest = packing.cumulative, packing.longest
    assert ends is not None
    query, key, value = qkv_ND.view(qkv_ND.shape[0], num_heads, 3, -1).unbind(2)
    if p == 0:
        out = _varlen_attn(query, key, value, ends, longest)
    else:
        # Not causal, no debugging.
        arguments = (query, key, value, ends, ends, longest, longest, p, False, False)
        out = torch.ops.aten._flash_attention_forward(*arguments)[0]
    return out.reshape(qkv_ND.shape[0], -1)


def _varlen_attn(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(query, key, value, ends, ends, longest, longest)
    assert isinstance(out, Tensor)
    return out
