"""Weights, gradients and optimiser in shards over ranks; each layer is put together when it is needed.

The framework's `fully_shard` gathers the weights of a layer before it runs, forward and backward, and deals
the sums of its gradients out. Around layers that are shared between ranks (tensor parallel) it shards
what each of those holds. Order: share layers, checkpoint activations, compile, shard. The optimiser sees
plain fp32 tensors, the local shards. Cost a rank: 16 bytes a parameter over the number of shards, one layer
whole in the precision of the model, and for every micro-batch two gathers and one sum of all weights.

Source: Zhao et al. 2023, "PyTorch FSDP", arXiv 2304.11277, section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from ..core.allocator import keep_large_buffers
from ..core.errors import ConfigError
from ..model.heads import MaskedLM
from .building import fill, materialize
from .config import ParallelConfig
from .cpu_messages import Buffers, use_cpu_messages, values_to_send
from .engine import Accept, Objective, StepOutcome, accept_finite
from .factory import EngineParts
from .loss_scaling import LossScaler
from .masters import forget_step, set_rate
from .shards import Shards, copies_of
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
from .tensor_parallel import partial_parameters, share_layers, sum_partial_gradients
from .world import World

__all__ = ["ShardedEngine"]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def _make_mesh(config: ParallelConfig, world: World, device: str) -> DeviceMesh:
    """Ranks as copies x shards x parts of layers.

    Raises:
        ConfigError: the ranks cannot be dealt out so.
    """
    world.check_replicas(config.replicas)
    shape = (config.replicas, world.data_size // config.replicas, world.tensor)
    return init_device_mesh(device, shape, mesh_dim_names=("replicate", "shard", "tensor"))


class ShardedEngine:
    """Runs steps on a model that lies in shards.

    Args:
        parts: what every engine is made of; the model must be a `MaskedLM`.
        config: how to shard.
        world: the processes of the run.

    Raises:
        ConfigError: ranks, model or optimiser cannot be dealt out so.
    """

    equal_micro_batches = True

    def __init__(self, parts: EngineParts, config: ParallelConfig, world: World) -> None:
        if world.group is None:
            raise ConfigError(
                '"parallel.engine" is "fsdp2", which needs a launcher even for one process; start it with '
                "maskwright launch, or set parallel.engine=single"
            )
        model = parts.model
        assert isinstance(model, MaskedLM)
        self.world, self.max_grad_norm = world, parts.max_grad_norm
        self.model: nn.Module = model
        if parts.device == "cpu":
            keep_large_buffers()
        self.scaler = LossScaler() if parts.precision == "fp16" else None
        mesh = _make_mesh(config, world, parts.device)
        self._tensor_group = mesh["tensor"].get_group() if world.tensor > 1 else None
        if world.tensor > 1:
            if parts.first_weights is None:
                model.to(parts.device)
            share_layers(model, mesh["tensor"], world)
        self._partial = sorted(partial_parameters(model)) if world.tensor > 1 else []
        parts.prepare(model)
        buffers = _shard(model, mesh, config, parts.precision)
        if parts.first_weights is not None:
            materialize(model, "cpu" if config.cpu_offload else parts.device)
            fill(model, parts.first_weights())
        self.named: dict[str, DTensor] = dict(self.model.named_parameters())  # type: ignore[arg-type]
        self.masters = {name: nn.Parameter(_local(weight)) for name, weight in self.named.items()}
        shards = Shards(self.named, self.masters, world, config.replicas, parts.device)
        self.optimizer = parts.make_optimizer(self.masters.items(), shards)
        for each in buffers:
            each.reserve()
        self._make_state()

    @torch.no_grad()
    def _make_state(self) -> None:
        """Let the optimiser allocate its state, so that it can be loaded."""
        set_rate(self.optimizer, 0.0)
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        self.optimizer.step()
        for master in self.masters.values():
            master.grad = None
            forget_step(self.optimizer.state[master])

    def forward_backward(
        self, objective: Objective, batch: Any, totals: Mapping[str, int], *, last: bool
    ) -> dict[str, float]:
        """Add the gradient of each `loss_sum / total`; sums of ranks are dealt out layer by layer."""
        losses, sums = objective(self.model, batch, train=True)
        sum_losses(losses, totals, self.scaler).backward()  # type: ignore[no-untyped-call]
        return read_sums(losses, sums)

    @torch.no_grad()
    def forward(self, objective: Objective, batch: Any) -> dict[str, float]:
        """The sums with `loss_sum`, without a gradient."""
        return read_sums(*objective(self.model, batch, train=False))

    def step(self, lr: float, accept: Accept = accept_finite) -> StepOutcome:
        """Clip by the norm of the whole gradient, and change the shards; or nothing, with a reason."""
        scale = scale_of(self.scaler)
        grads = {name: _local(weight.grad) for name, weight in self.named.items() if weight.grad is not None}
        if self._tensor_group is not None:
            partial = [grads[name] for name in self._partial if name in grads]
            sum_partial_gradients(partial, self._tensor_group)
        copies = {name: copies_of(self.named[name]) for name in grads}
        norms = norms_of_shards(self.world, grads, copies, scale)
        reason = judge(norms, self.scaler, accept)
        if reason is None:
            self._apply(grads, lr, clipping(norms, self.max_grad_norm) / scale)
        for weight in self.named.values():
            weight.grad = None
        return StepOutcome(norms, reason)

    @torch.no_grad()
    def _apply(self, grads: Mapping[str, Tensor], lr: float, factor: float) -> None:
        if factor != 1:
            torch._foreach_mul_(list(grads.values()), factor)
        for name, master in self.masters.items():
            # Shards may have moved since, as when they are kept on the CPU.
            master.data, master.grad = _local(self.named[name]), grads.get(name)
        set_rate(self.optimizer, lr)
        self.optimizer.step()
        for master in self.masters.values():
            master.grad = None

    def state(self) -> dict[str, Any]:
        """Shards of weights and optimiser state by parameter name."""
        optimizer = {
            name: {key: self._whole(name, value) for key, value in self.optimizer.state[master].items()}
            for name, master in self.masters.items()
        }
        weights = {name: weight.detach() for name, weight in self.named.items()}
        return {"model": weights, "optimizer": optimizer, **scaler_state(self.scaler)}

    def _whole(self, name: str, value: Any) -> Any:
        """A local tensor of the optimiser as a shard of a whole one, cut as the parameter is."""
        weight = self.named[name]
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value
        return DTensor.from_local(
            value,
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that is sharded as `state()` is.

        Raises:
            CheckpointError: a weight is missing, has another shape, or is not of this model.
        """
        check_weights(state["model"], {name: weight.shape for name, weight in self.named.items()})
        for name, weight in self.named.items():
            _local(weight).copy_(_local(state["model"][name]))
            mine = self.optimizer.state[self.masters[name]]
            for key, value in state.get("optimizer", {}).get(name, {}).items():
                if isinstance(mine.get(key), Tensor):
                    mine[key].copy_(_local(value))
                else:
                    mine[key] = value
        load_scaler(self.scaler, state)

    def weights(self) -> dict[str, Tensor]:
        """The whole fp32 weights on the CPU of rank 0, put together one after the other."""
        found = {}
        # Shards of shares take two gathers each, which is said for every weight otherwise.
        logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
        for name, weight in self.named.items():
            whole: Tensor = weight.full_tensor().detach()
            if self.world.is_main:
                found[name] = whole.cpu()
        return found


def _shard(model: MaskedLM, mesh: DeviceMesh, config: ParallelConfig, precision: str) -> tuple[Buffers, ...]:
    """Shard each layer for itself, and what is left together; what is to be reserved for the first step."""
    dims = ("replicate", "shard") if config.replicas > 1 else "shard"
    policy = MixedPrecisionPolicy(
        param_dtype=_DTYPES[precision],
        reduce_dtype=torch.float32 if config.reduce_precision == "fp32" else torch.bfloat16,
    )
    offload = (
        CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if config.cpu_offload else OffloadPolicy()
    )
    layers = list(model.encoder.layers)
    ranks = mesh["shard"].size()
    layer, whole = values_to_send(layers[0], ranks), values_to_send(model, ranks)
    modules: Iterable[nn.Module] = [*layers, model]
    for module in modules:
        kept = module is model or not config.reshard_after_forward
        fully_shard(
            module,
            mesh=mesh[dims],
            reshard_after_forward=not kept,
            mp_policy=policy,
            offload_policy=offload,
        )
        assert isinstance(module, FSDPModule)
        # Losses are divided by the targets of all ranks already.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    if mesh.device_type == "cpu":
        dtypes = policy.param_dtype or torch.float32, policy.reduce_dtype or torch.float32
        return use_cpu_messages(layers, model, (layer, whole - len(layers) * layer), ranks, dtypes)
    return ()


def _local(tensor: Tensor) -> Tensor:
    local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.detach()
