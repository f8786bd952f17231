"""Sharing a model between ranks that see the same samples: which parameter is cut where.

A rank holds a T-th of every large matrix and of the word table, and all of what is small. What is small
and is used for a rank's own tokens only has a gradient of these tokens, which is added up over ranks once
a step. Cost of a pass, for N tokens of width D and each layer: two gathers and two sums dealt out in each
direction, each of which sends (T - 1) / T × N × D values a rank.

Legend: T ranks, N tokens, D hidden.

Source: Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3; Korthikanti et al. 2022, arXiv
2205.05198, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from ...core.errors import ConfigError
from ...model.config import EncoderConfig
from ...model.embeddings import Embeddings
from ...model.encoder import Encoder
from ...model.heads import MaskedLM
from ...model.layers import EncoderLayer
from ..world import World
from .group import SharingGroup
from .heads import SharedMaskedLM
from .modules import LocalLinear, LocalNorm, SharedEmbeddings, SharedEncoder, SharedLayer

__all__ = ["check_shares", "partial_parameters", "placement_of", "share_layers", "sum_partial_gradients"]

# Parts of a layer that are cut by outputs, which are rows, and by inputs, which are columns.
_BY_ROWS = ("qkv.weight", "qkv.bias", "intermediate.weight", "intermediate.bias")
_BY_COLUMNS = ("attention_output.weight", "output.weight")
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    MaskedLM: SharedMaskedLM,
    Encoder: SharedEncoder,
    Embeddings: SharedEmbeddings,
    EncoderLayer: SharedLayer,
    nn.Linear: LocalLinear,
    nn.LayerNorm: LocalNorm,
}


def check_shares(config: EncoderConfig, tensor: int) -> None:
    """Refuse a number of ranks that a model cannot be shared between.

    Args:
        config: shape of the model.
        tensor: T.

    Raises:
        ConfigError: heads, inner values or vocabulary cannot be dealt out.
    """
    for name in ("num_attention_heads", "intermediate_size"):
        size = getattr(config, name)
        if size % tensor:
            raise ConfigError(
                f'"parallel.tensor" is {tensor}, but the model has {name} {size}, which is no multiple of '
                "it; change one of them"
            )
    rows = -(-config.vocab_size // tensor)
    if rows * (tensor - 1) >= config.vocab_size:
        raise ConfigError(
            f'"parallel.tensor" is {tensor}, but with vocab_size {config.vocab_size} the last rank would '
            "have no entry; set a smaller number"
        )


def placement_of(name: str) -> Placement:
    """Where a parameter is cut.

    Args:
        name: of the parameter in a `MaskedLM`, such as `encoder.layers.3.qkv.weight`.

    Returns:
        `Shard(0)`, `Shard(1)`, or `Replicate()` for what every rank has.
    """
    layer = name.rpartition(".layers.")[2].partition(".")[2] if ".layers." in name else ""
    if layer in _BY_COLUMNS:
        return Shard(1)
    if layer in _BY_ROWS or name in ("encoder.embeddings.word.weight", "head_bias"):
        return Shard(0)
    return Replicate()


def share_layers(model: MaskedLM, mesh: DeviceMesh, world: World) -> None:
    """Share a model between the ranks of a mesh; changed in place.

    Its parameters become DTensors on the mesh under their old names, and it computes by exchanging
    hidden values with the other ranks. All ranks must call it with the same micro-batches, and get the
    same sums. What shards weights further (FSDP) goes around it afterwards.

    Args:
        model: whole, with the same weights on every rank; or on the meta device.
        mesh: the T ranks in one dimension.
        world: the processes of the run.

    Raises:
        ConfigError: the model cannot be dealt out to so many ranks.
    """
    assert mesh.ndim == 1
    assert mesh.size() == world.tensor
    assert mesh.get_local_rank() == world.rank % world.tensor
    check_shares(model.config, mesh.size())
    share = SharingGroup.of(mesh.get_group())
    for name, parameter in list(model.named_parameters()):
        owner, _, end = name.rpartition(".")
        # Nothing is sent: every rank takes its part of what it has.
        cut = distribute_tensor(parameter.data, mesh, [placement_of(name)], src_data_rank=None)
        setattr(model.get_submodule(owner), end, nn.Parameter(cut, parameter.requires_grad))
    for module in model.modules():
        shared = _CLASSES.get(type(module))
        if shared is not None:
            module.__class__ = shared
            if not isinstance(module, nn.Linear | nn.LayerNorm):
                module.share = share  # type: ignore[assignment]


def partial_parameters(model: nn.Module) -> set[str]:
    """Names of parameters whose gradient is that of the rank's own tokens, to be added up over ranks.

    Args:
        model: shared by `share_layers`; also sharded further.
    """
    found = set()
    for owner, module in model.named_modules():
        names: Sequence[str] = ()
        if isinstance(module, SharedLayer):
            names = ("attention_norm.weight", "attention_norm.bias", "output_norm.weight", "output_norm.bias")
            names = (*names, "attention_output.bias", "output.bias")
        elif isinstance(module, SharedEmbeddings):
            names = ("position.weight", "token_type.weight", "norm.weight", "norm.bias")
        found |= {f"{owner}.{name}" for name in names}
    return found


@torch.no_grad()
def sum_partial_gradients(grads: Sequence[Tensor], group: Any) -> None:
    """Add gradients up over ranks, in place; all are sent at once.

    Args:
        grads: this rank's own tensors, of one type and device; as many and as large on every rank.
        group: ranks that share the layers.
    """
    assert not any(isinstance(grad, DTensor) for grad in grads)
    if not grads:
        return
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat, group=group)
    for grad, total in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):  # type: ignore[no-untyped-call]
        grad.copy_(total.view_as(grad))
