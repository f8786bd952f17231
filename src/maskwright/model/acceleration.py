"""What makes a model faster or smaller in memory, put on from outside: model code knows nothing of it.

Legend: N tokens, D hidden, M predicted positions, C their number after filling up, V vocabulary.

In order: fp8 matrix products (`convert_to_fp8`, an experiment), then `accelerate_model`: one compiled
function for all layers and one for the head, then activation checkpointing around it. A checkpoint
stands outside of what is compiled, so that the second forward pass runs the same code as the first
and draws the same dropout masks from a generator that is set back.

Training code is compiled for fixed shapes. Sequences of one length have them; the number of masked
positions varies, so it is filled up to a capacity with labels that count nothing (`TargetCapacity`,
some percent more positions). Sequences of unequal length, and shapes after the first few, run code
that is compiled once for any shape. Passes without a gradient are not compiled: evaluations come in
too many shapes to be worth it.

On the CPU the layers in `layers.py` are faster than compiled ones, keep less, and draw dropout masks
that do not depend on how a batch is split. Compiling there is for tests.

Source: Chen et al. 2016 (arXiv 1604.06174) for checkpointing; Ansel et al. 2024 (ASPLOS) for the
compiler.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..core.errors import ConfigError, MissingDependencyError
from ..core.log import get_logger
from .dropout import DropoutKeys
from .fused_attention import Packing, attend, pack
from .heads import MaskedLM
from .layers import EncoderLayer, Hidden
from .layout import Layout

__all__ = [
    "ActivationCheckpointing",
    "Fp8Recipe",
    "TargetCapacity",
    "accelerate_model",
    "capacity_for",
    "convert_to_fp8",
    "pad_targets",
    "plain_layer",
    "plain_masked_loss",
]

log = get_logger(__name__)
ActivationCheckpointing = Literal["none", "full", "selective"]
Fp8Recipe = Literal["tensorwise", "rowwise", "rowwise_with_gw_hp"]
_RunLayer = Callable[[EncoderLayer, Tensor, Packing, bool], Tensor]
_RunHead = Callable[[MaskedLM, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_Function = TypeVar("_Function", bound=Callable[..., object])
# Each costs seconds of compiling; full micro-batches, the last one of a step, targets beyond capacity.
_STATIC_SHAPES = 3
# Matrix products run at full rate where the sides are multiples of this many values.
_TILE = 64
_FP8_TILE = 16
_FP8_CAPABILITY = (9, 0)
_SIGMAS = 6
# The label that counts nothing, in the framework and in `loss.py`.
_IGNORED = -100


def plain_layer(layer: EncoderLayer, hidden_ND: Tensor, packing: Packing, drop: bool) -> Tensor:
    """`EncoderLayer.forward` in the framework's own operations, for devices and compilers.

    Args:
        layer: whose weights to use.
        hidden_ND: of shape (N, D).
        packing: how sequences lie.
        drop: whether to drop values, by the device's own generator.

    Returns:
        Tensor of shape (N, D).
    """
    p = layer.hidden_dropout_prob
    dropped = layer.attention_dropout_prob if drop else 0.0
    update_ND = layer.attention_output(attend(layer.qkv(hidden_ND), packing, layer.num_heads, dropped))
    hidden_ND = layer.attention_norm(hidden_ND + F.dropout(update_ND, p, drop))
    update_ND = layer.output(F.gelu(layer.intermediate(hidden_ND)))
    result: Tensor = layer.output_norm(hidden_ND + F.dropout(update_ND, p, drop))
    return result


def plain_masked_loss(
    model: MaskedLM, hidden_CD: Tensor, labels_C: Tensor, table_VD: Tensor
) -> tuple[Tensor, Tensor]:
    """`MaskedLM.masked_loss` in the framework's own operations, which a compiler fuses.

    The vocabulary is filled up to whole tiles: with its 50,265 entries as they are, the largest
    matrix product of the model runs at a fraction of its rate.

    Args:
        model: whose weights to use.
        hidden_CD: what the encoder returned for the predicted positions.
        labels_C: their right ids, int64; -100 counts nothing.
        table_VD: output embeddings.

    Returns:
        `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
    """
    extra = -len(table_VD) % _TILE
    weight_VD = F.pad(table_VD, (0, 0, 0, extra))
    bias_V = F.pad(model.head_bias, (0, extra), value=-math.inf)
    logits_CV = F.linear(model.features(hidden_CD), weight_VD, bias_V)
    wide = torch.promote_types(logits_CV.dtype, torch.float32)
    loss = F.cross_entropy(logits_CV.to(wide), labels_C, ignore_index=_IGNORED, reduction="sum")
    return loss, (logits_CV.argmax(-1) == labels_C).sum()


class _Compiled(Generic[_Function]):
    """A function compiled for the first few shapes one by one, and otherwise another one.

    Args:
        function: what to compile.
        otherwise: what runs for all other shapes.
        backend: of the compiler.
    """

    def __init__(self, function: _Function, otherwise: _Function, backend: str) -> None:
        static = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
        self.static = cast(_Function, static)
        self.otherwise = otherwise
        self.shapes: set[tuple[int, ...]] = set()

    def of(self, *shape: int) -> _Function:
        """What to run for a shape; an empty one is any."""
        if shape and (shape in self.shapes or len(self.shapes) < _STATIC_SHAPES):
            self.shapes.add(shape)
            return self.static
        return self.otherwise


def accelerate_model(
    model: nn.Module,
    *,
    compile: bool = False,  # noqa: A002 - the framework's word for it
    activation_checkpointing: ActivationCheckpointing = "none",
    checkpoint_every: int = 2,
    capacity: TargetCapacity | None = None,
    backend: str = "inductor",
) -> None:
    """Make a model compute faster or in less memory; its weights and their names stay as they are.

    Args:
        model: anything with encoder layers in it; changed in place. The last call counts.
        compile: compile layers and head for training. The first steps take a minute.
        activation_checkpointing: which layers keep only their input and compute the rest again in
            the backward pass: `full` all of them, for a third more arithmetic; `selective` some.
        checkpoint_every: for `selective`: the first of so many layers.
        capacity: fills up the predicted positions of a compiled masked language model, so that their
            number does not change what is compiled.
        backend: of the compiler.

    Raises:
        ConfigError: `checkpoint_every` is less than 1.
    """
    if checkpoint_every < 1:
        raise ConfigError(f'"checkpoint_every" is {checkpoint_every}, expected at least 1')
    every = {"none": 0, "full": 1, "selective": checkpoint_every}[activation_checkpointing]
    compiled: _Compiled[_RunLayer] | None = None
    if compile:
        # Where the compiler gives up, it must not stop a run: only static code asks for whole graphs.
        any_shape = torch.compile(plain_layer, dynamic=True, backend=backend)
        compiled = _Compiled(plain_layer, any_shape, backend)
    layers = [part for part in model.modules() if isinstance(part, EncoderLayer)]
    for number, layer in enumerate(layers):
        again = every > 0 and number % every == 0
        layer.forward = partial(_forward, layer, compiled, again)  # type: ignore[method-assign]
        compile_shares = getattr(layer, "compile_shares", None)
        if compile and compile_shares is not None:
            # Ranks that share a layer exchange values in the middle of it, which stays as it is.
            compile_shares(backend)
    if isinstance(model, MaskedLM):
        model.__dict__.pop("masked_loss", None)
        if compile and type(model).masked_loss is MaskedLM.masked_loss:
            head = _Compiled[_RunHead](plain_masked_loss, plain_masked_loss, backend)
            model.masked_loss = partial(_masked_loss, model, head, capacity)  # type: ignore[method-assign]


def _masked_loss(
    model: MaskedLM,
    head: _Compiled[_RunHead],
    capacity: TargetCapacity | None,
    hidden_ND: Tensor,
    targets_C: Tensor,
    labels_C: Tensor,
    table_VD: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `accelerate_model` puts in the place of `masked_loss`."""
    if capacity is not None and torch.is_grad_enabled():
        targets_C, labels_C = capacity.pad(targets_C, labels_C)
    # Positions are taken here: the number of tokens does not matter to what is compiled.
    hidden_CD = hidden_ND.index_select(0, targets_C)
    run = head.of(len(labels_C)) if torch.is_grad_enabled() else plain_masked_loss
    table_VD = model.encoder.embeddings.word.weight if table_VD is None else table_VD
    return run(model, hidden_CD, labels_C, table_VD)


def _forward(
    layer: EncoderLayer,
    compiled: _Compiled[_RunLayer] | None,
    again: bool,
    hidden: Hidden,
    layout: Layout,
    keys: DropoutKeys | None,
) -> Hidden:
    """What `accelerate_model` puts in the place of a layer's forward."""
    again, on_cpu = again and torch.is_grad_enabled(), hidden.value.device.type == "cpu"
    if not layer.is_plain or (on_cpu and compiled is None):
        if not again:
            return type(layer).forward(layer, hidden, layout, keys)
        # Keyed masks come out the same by themselves; there is no generator to set back on the CPU.
        arguments = (layer, hidden.value, layout, keys)
        return Hidden(
            checkpoint(_own_forward, *arguments, use_reentrant=False, preserve_rng_state=not on_cpu)
        )
    packing = pack(layout, hidden.value.dtype, layer.qkv.in_features // layer.num_heads)
    run: _RunLayer = plain_layer
    if compiled is not None and torch.is_grad_enabled():
        run = compiled.of(*((packing.rows, packing.longest) if layout.uniform else ()))
    if again:
        return Hidden(checkpoint(run, layer, hidden.value, packing, keys is not None, use_reentrant=False))
    return Hidden(run(layer, hidden.value, packing, keys is not None))


def _own_forward(layer: EncoderLayer, hidden_ND: Tensor, layout: Layout, keys: DropoutKeys | None) -> Tensor:
    """The layer's own forward, from a value alone to a value alone."""
    return type(layer).forward(layer, Hidden(hidden_ND), layout, keys).value


def capacity_for(num_tokens: int, rate: float, run_length: float = 1.0) -> int:
    """How many predicted positions a micro-batch practically never exceeds.

    Args:
        num_tokens: N.
        rate: share of tokens that is selected.
        run_length: tokens that are selected together (whole words, spans), as the mean of squared
            lengths over the mean length.

    Returns:
        The mean and six standard deviations of a binomial count of runs, in whole tiles; at most N
        in whole tiles.

    Raises:
        ConfigError: a value is out of its range.
    """
    if num_tokens < 1 or not 0 < rate <= 1 or run_length < 1:
        raise ConfigError(
            f"capacity_for got {num_tokens} tokens, rate {rate} and run length {run_length}; expected at "
            "least 1 token, a rate above 0 and at most 1, and a run of at least 1"
        )
    deviation = math.sqrt(num_tokens * rate * (1 - rate) * run_length)
    most = min(num_tokens, math.ceil(num_tokens * rate + _SIGMAS * deviation))
    return -(-most // _TILE) * _TILE


def pad_targets(targets_M: Tensor, labels_M: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Fill predicted positions up to a multiple of a capacity with ones that count nothing.

    Args:
        targets_M: which positions are predicted, int64.
        labels_M: their right ids, int64.
        capacity: from `capacity_for`.

    Returns:
        `(targets_C, labels_C)`; the new positions are the first token with the label -100. C is the
        capacity, or its next multiple where there are more targets: no target is ever left out.
    """
    assert capacity >= 1
    found = len(targets_M)
    extra = max(1, -(-found // capacity)) * capacity - found
    return F.pad(targets_M, (0, extra)), F.pad(labels_M, (0, extra), value=_IGNORED)


class TargetCapacity:
    """Fills up predicted positions, and counts how often there were too many.

    Args:
        capacity: positions that are always there.

    Attributes:
        overflows: micro-batches with more targets than the capacity.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.overflows = 0

    def pad(self, targets_M: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
        """`pad_targets`; says once that a larger size was needed, which is compiled anew."""
        if len(targets_M) > self.capacity:
            self.overflows += 1
            if self.overflows == 1:
                log.warning(
                    "a micro-batch has %d predicted positions, planned were %d; it is computed with a "
                    "multiple of that, compiled on its own; later ones are counted in silence",
                    len(targets_M),
                    self.capacity,
                )
        return pad_targets(targets_M, labels_M, self.capacity)


def convert_to_fp8(model: nn.Module, recipe: Fp8Recipe = "tensorwise") -> int:
    """Let the matrix products of encoder layers run in fp8, forward and backward; an experiment.

    Weights, gradients and optimiser stay as they are. Only products whose sides are multiples of 16
    take part, and never the head. Worth it only compiled.

    Args:
        model: on a CUDA device, in bf16; changed in place.
        recipe: `tensorwise` (fastest), `rowwise` or `rowwise_with_gw_hp` (most accurate).

    Returns:
        Number of matrices that compute in fp8 now.

    Raises:
        ConfigError: the device has no fp8 matrix units that can train.
        MissingDependencyError: torchao is not installed.

    Source: Micikevicius et al. 2022 (arXiv 2209.05433) for the formats.
    """
    _require_fp8_units(next(model.parameters()).device)
    try:
        float8 = importlib.import_module("torchao.float8")
    except ImportError as error:
        raise MissingDependencyError("torchao", "fp8", "compute in fp8") from error
    # Sequences of unequal length may add up to any number of tokens, the inner side of one product.
    config = replace(float8.Float8LinearConfig.from_recipe_name(recipe), pad_inner_dim=True)
    converted: list[str] = []

    def fits(module: nn.Module, name: str) -> bool:
        suits = isinstance(module, nn.Linear) and not (
            module.in_features % _FP8_TILE or module.out_features % _FP8_TILE
        )
        if suits:
            converted.append(name)
        return suits

    for layer in model.modules():
        if isinstance(layer, EncoderLayer):
            float8.convert_to_float8_training(layer, module_filter_fn=fits, config=config)
    return len(converted)


def _require_fp8_units(device: torch.device) -> None:
    if device.type != "cuda":
        raise ConfigError(f'"fp8" is on, but the model is on the {device.type}; set fp8=false')
    found = torch.cuda.get_device_capability(device)
    if found < _FP8_CAPABILITY:
        raise ConfigError(
            f'"fp8" is on, but {torch.cuda.get_device_name(device)} has compute capability '
            f"{found[0]}.{found[1]}, and 9.0 (Hopper) is needed; set fp8=false"
        )
