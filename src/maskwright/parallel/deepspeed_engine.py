"""ZeRO by DeepSpeed, with our optimiser, our norms and refusals, and our checkpoints.

DeepSpeed moves and shards; what a step is stays here. It averages gradients over ranks, we add them up: the
number of ranks, the clipping and our own loss scale go into the one factor by which it unscales gradients,
so that they are touched once. A refused step takes the way of a gradient that overflowed.

Cost: what the stage costs; and for a checkpoint, the whole fp32 weights and optimiser state on the CPU of
every rank, 12 bytes a parameter with AdamW, since its shards do not follow the edges of tensors.

Source: Rajbhandari et al. 2020, "ZeRO", arXiv 1910.02054, section 5.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.allocator import keep_large_buffers
from ..core.errors import ConfigError, MissingDependencyError
from ..core.log import get_logger
from .config import ParallelConfig
from .deepspeed_config import StepPlan, make_deepspeed_config, make_loss_scaler
from .engine import Accept, Objective, StepOutcome, accept_finite
from .factory import EngineParts
from .masters import forget_step, set_rate
from .steps import (
    check_weights,
    clipping,
    judge,
    load_scaler,
    norms_of_shards,
    read_sums,
    scale_of,
    scaler_state,
    sum_losses,
)
from .world import World

__all__ = ["DeepSpeedEngine"]

log = get_logger(__name__)


def _library(device: str, precision: str) -> Any:
    """DeepSpeed, with less to say.

    Raises:
        ConfigError: it does not compute in that precision on this device.
        MissingDependencyError: it is not installed.
    """
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        library = importlib.import_module("deepspeed")
    except ImportError as error:
        purpose = "run with parallel.engine=deepspeed"
        raise MissingDependencyError("deepspeed", "deepspeed", purpose) from error
    # It reports every default on every rank, and warns of the steps that we refuse.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if precision == "fp16" and not library.accelerator.get_accelerator().is_fp16_supported():
        raise ConfigError(
            f"precision is fp16, in which DeepSpeed does not compute on this device ({device}); set "
            "precision=bf16, or another parallel.engine"
        )
    return library


class _Called:
    """The model for objectives: a call goes through DeepSpeed, everything else is the model's own.

    Args:
        engine: of DeepSpeed; it has attributes such as `config` that hide those of the model.
        model: as it was given.
    """

    def __init__(self, engine: Any, model: nn.Module) -> None:
        self._engine, self._model = engine, model

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self._engine(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class DeepSpeedEngine:
    """Runs steps on a model that DeepSpeed shards.

    Args:
        parts: what every engine is made of.
        config: the stage, or a `ds_config.json`.
        world: the processes of the run.

    Raises:
        ConfigError: the optimiser cannot be sharded, no launcher started the run, or the file contradicts
            the recipe.
        MissingDependencyError: DeepSpeed is not installed.
    """

    equal_micro_batches = True

    def __init__(self, parts: EngineParts, config: ParallelConfig, world: World) -> None:
        sizes = (world.data_size, parts.sequences, parts.micro_sequences)
        plan = StepPlan(parts.precision, parts.max_grad_norm, *sizes)
        setting = make_deepspeed_config(config, plan)
        self.stage: int = setting["zero_optimization"]["stage"]
        if self.stage and not getattr(parts.make_optimizer, "elementwise", False):
            raise ConfigError(
                '"optimizer.name" is one that needs whole matrices, which lie in shards with '
                "parallel.engine=deepspeed; set parallel.engine=fsdp2, parallel.zero_stage=0 or "
                "optimizer.name=adamw"
            )
        if world.group is None:
            raise ConfigError(
                '"parallel.engine" is "deepspeed", which needs a launcher even for one process; start it '
                "with maskwright launch, or set parallel.engine=single"
            )
        library = _library(parts.device, parts.precision)
        if parts.device == "cpu":
            keep_large_buffers()
        self.world, self.max_grad_norm = world, parts.max_grad_norm
        self.scaler, ignored = make_loss_scaler(config, parts.precision)
        for said in ignored if world.is_main else ():
            log.warning(said)
        self.model: nn.Module = parts.model.to(parts.device)
        parts.prepare(self.model)
        self.named = dict(self.model.named_parameters())
        self.shapes = {name: parameter.shape for name, parameter in self.named.items()}
        self.optimizer = parts.make_optimizer(self.named.items())
        # Some of what follows steps without a gradient; decay must not change weights then.
        set_rate(self.optimizer, 0.0)
        if self.stage == 3:
            _tell_owners(library, self.model)
        self.engine: Any
        self.engine, *_ = library.initialize(model=self.model, optimizer=self.optimizer, config=setting)
        self.zero = self.engine.optimizer
        self._called = _Called(self.engine, self.model)
        self._tools = importlib.import_module("deepspeed.utils")
        self._make_state()

    @torch.no_grad()
    def _make_state(self) -> None:
        """Let the optimiser allocate its state, so that it can be loaded."""
        flats = self._flats()
        kept = [flat.grad for flat in flats]
        for index, flat in enumerate(flats):
            flat.grad = torch.zeros_like(flat)
            if self.stage == 3:
                self.zero._optimizer_step(index)
        if self.stage != 3:
            self.optimizer.step()
        for flat, grad in zip(flats, kept, strict=True):
            flat.grad = grad
        for state in self.optimizer.state.values():
            forget_step(state)
        if self.stage in (1, 2):
            # Only with it do parameters find their part of the state.
            self.zero._lazy_init_hp_params_optimizer_state()

    def _flats(self) -> list[Tensor]:
        """The tensors that the optimiser changes on this rank."""
        if self.stage == 3:
            return list(self.zero.fp32_partitioned_groups_flat)
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int], *, last: bool
    ) -> dict[str, float]:
        """Add the gradient of each `loss_sum / total`; DeepSpeed averages over ranks, `step` undoes that."""
        self.engine.set_gradient_accumulation_boundary(last)
        losses, sums = objective(self._called, batch, train=True)
        self.engine.backward(sum_losses(losses, totals, self.scaler), scale_wrt_gas=False)
        return read_sums(losses, sums)

    @torch.no_grad()
    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The sums with `loss_sum`, without a gradient."""
        return read_sums(*objective(self._called, batch, train=False))

    @torch.no_grad()
    def step(self, lr: float, accept: Accept = accept_finite) -> StepOutcome:
        """Clip by the norm of the whole gradient, and change the shards; or nothing, with a reason."""
        scale = scale_of(self.scaler) / self.world.data_size
        # Ranks have pieces of different weights, and only in stage 0 the same ones.
        copies = dict.fromkeys(self.named, self.world.data_size if self.stage == 0 else 1)
        norms = norms_of_shards(self.world, self._local_gradients(), copies, scale)
        reason = judge(norms, self.scaler, accept)
        if reason is None:
            set_rate(self.optimizer, lr)
            self._apply(clipping(norms, self.max_grad_norm) / scale)
        else:
            self._refuse()
        return StepOutcome(norms, reason)

    def _local_gradients(self) -> dict[str, Tensor]:
        """What this rank has of the averaged gradient, by parameter."""
        if self.stage == 0:
            return {name: weight.grad for name, weight in self.named.items() if weight.grad is not None}
        if self.stage == 3:
            return {name: self._tools.safe_get_local_grad(weight) for name, weight in self.named.items()}
        found = {}
        for name, weight in self.named.items():
            piece = getattr(weight, "_hp_mapping", None)
            if piece is not None:
                place = piece.lp_fragment_address
                grad = piece.get_lp_grad_fragment(weight._index_in_param_group).reshape(-1)  # type: ignore[attr-defined]
                # Some ways of accumulating keep the whole parameter's.
                found[name] = (
                    grad if grad.numel() == place.numel else grad.narrow(0, place.start, place.numel)
                )
        return found

    def _apply(self, factor: float) -> None:
        """Change the weights by the gradients times a factor."""
        if self.stage == 0:
            torch._foreach_mul_(list(self._local_gradients().values()), factor)
            self.engine.step()
        else:
            self.zero.override_loss_scale(1.0 / factor)
            self.engine.step()
            self.zero.override_loss_scale(1.0)
        assert self.engine.was_step_applied()

    def _refuse(self) -> None:
        """Forget the gradients, as DeepSpeed does after an overflow."""
        if self.stage == 0:
            self.engine.zero_grad()
        elif self.stage == 3:
            self.zero._pre_step()
            self.zero._partition_all_parameters()
            self.zero._overflow_clean_up(1.0)
        else:
            # Its own check is the one place that both clears everything and changes nothing.
            check, kept = self.zero.check_overflow, self.zero.check_grad_overflow
            self.zero.check_grad_overflow = True
            self.zero.check_overflow = lambda **_: setattr(self.zero, "overflow", True)
            try:
                self.zero.step()
            finally:
                self.zero.check_overflow, self.zero.check_grad_overflow = check, kept
            # With offloading it keeps what it accumulates in fp32, and would add the next step to it.
            for index in self.zero.averaged_gradients:
                self.zero.averaged_gradients[index] = None

    def state(self) -> dict[str, Any]:
        """Whole weights and optimiser state by parameter name, on the CPU of every rank."""
        kept = next(iter(self.optimizer.state.values()))
        counts = {
            key: value for key, value in kept.items() if not isinstance(value, Tensor) or not value.dim()
        }
        optimizer: dict[str, dict[str, Any]] = {}
        for name, weight in self.named.items():
            # In the same order on all ranks, since each piece is put together by all of them.
            optimizer[name] = {
                key: _copied(counts[key]) if key in counts else self._whole(name, weight, key) for key in kept
            }
        weights = {name: self._whole(name, weight) for name, weight in self.named.items()}
        return {"model": weights, "optimizer": optimizer, **scaler_state(self.scaler)}

    @torch.no_grad()
    def _whole(self, name: str, weight: Tensor, key: str | None = None) -> Tensor:
        """A weight, or what the optimiser remembers of it, put together from all ranks."""
        if self.stage == 0:
            found = weight if key is None else self.optimizer.state[weight][key]
        elif key is None:
            found = self._tools.safe_get_full_fp32_param(weight)
        else:
            found = self._tools.safe_get_full_optimizer_state(weight, key)
        return torch.empty(self.shapes[name]).copy_(found.detach().view(self.shapes[name]))

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take over a state from `state()`.

        Raises:
            CheckpointError: a weight is missing, has another shape, or is not of this model.
        """
        check_weights(state["model"], self.shapes)
        if self.stage == 3:
            # Gathered copies of the old weights must not outlive them.
            self.zero._partition_all_parameters()
        remembered: dict[str, dict[str, Any]] = state.get("optimizer", {})
        for name, weight in self.named.items():
            self._put(weight, None, state["model"][name])
            for key, value in remembered.get(name, {}).items():
                if isinstance(value, Tensor) and value.dim():
                    self._put(weight, key, value)
        self._put_counts(remembered)
        self._hand_on()
        load_scaler(self.scaler, state)

    def _put(self, weight: Tensor, key: str | None, value: Tensor) -> None:
        value = value.to(self.engine.device)
        if self.stage == 0:
            (weight if key is None else self.optimizer.state[weight][key]).copy_(value)
        elif self.stage == 3:
            self._put_shard(weight, key, value.flatten())
        elif key is None:
            self._tools.safe_set_full_fp32_param(weight, value)
        else:
            self._tools.safe_set_full_optimizer_state(weight, value, key)

    def _put_shard(self, weight: Tensor, key: str | None, flat: Tensor) -> None:
        """This rank's piece; DeepSpeed's own way fails where a tensor is no multiple of the ranks."""
        if key is None:
            old = self._tools.safe_get_local_fp32_param(weight)
        else:
            old = self._tools.safe_get_local_optimizer_state(weight, key)
        size = old.numel()
        mine = flat[self.world.rank * size : (self.world.rank + 1) * size]
        piece = torch.nn.functional.pad(mine, (0, size - mine.numel()))
        if key is None:
            self._tools.safe_set_local_fp32_param(weight, piece)
        else:
            self._tools.safe_set_local_optimizer_state(weight, piece, key)

    def _put_counts(self, remembered: Mapping[str, Mapping[str, Any]]) -> None:
        """Numbers such as the count of steps; a shard has one for all parameters in it."""
        kept = next(iter(remembered.values()), {})
        counts = {
            key: value for key, value in kept.items() if not isinstance(value, Tensor) or not value.dim()
        }
        for mine in self.optimizer.state.values():
            for key, value in counts.items():
                if isinstance(mine.get(key), Tensor):
                    mine[key].copy_(value)
                else:
                    mine[key] = value

    def _hand_on(self) -> None:
        """Give the fp32 weights to the model that computes."""
        if self.stage in (1, 2):
            self.zero.update_lp_params()
        elif self.stage == 3:
            for index in range(len(self.zero.fp16_groups)):
                self.zero._reassign_or_swap_out_partitioned_parameters(index)
            kept = self.zero.persistent_parameters
            if kept:
                kept[0].all_gather(kept)

    def weights(self) -> dict[str, Tensor]:
        """The whole fp32 weights on the CPU of rank 0, put together one after the other."""
        found = {}
        for name, weight in self.named.items():
            whole = self._whole(name, weight)
            if self.world.is_main:
                found[name] = whole
        return found


def _copied(value: Any) -> Any:
    return value.detach().clone().cpu() if isinstance(value, Tensor) else value


def _tell_owners(library: Any, model: nn.Module) -> None:
    """Say which weights a module reads without calling the part that holds them.

    They are gathered with the module that reads them. Marking it as a leaf would not do: the gradients of a
    leaf are collected by a hook that finds no tensor in what layers hand to each other.
    """
    encoder: Any = model.get_submodule("encoder")
    for module in (encoder.embeddings, *encoder.layers):
        for parameter in module.parameters():
            library.zero.register_external_parameter(module, parameter)
    # The output weights are the word table, which belongs to a part of the model.
    library.zero.register_external_parameter(model, encoder.embeddings.word.weight)
