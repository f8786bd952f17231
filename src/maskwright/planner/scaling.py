"""How fast a run would be on so many devices, and which mesh is best: a model on paper, in code.

Arithmetic at a share of the peak, messages at a share of the link, and one hidden behind the other where
the engine does so. What it leaves out: stragglers, storage, input, kernels that become less efficient as
pieces become smaller. It ranks plans and shows what limits them; it is no promise of tokens a second.
A prediction costs microseconds, a choice for 1,024 devices some hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..core.errors import ConfigError
from .communication import Traffic, step_traffic
from .flops import TokenFlops, model_flops_per_token
from .hardware import Hardware
from .memory import RankMemory, rank_memory
from .setup import Batch, Mesh, Shape

__all__ = ["DEVICE_COUNTS", "Choice", "Estimate", "best_mesh", "predict", "scaling_table"]

DEVICE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Of a device's memory: what libraries and the allocator's waste leave.
_USABLE = 0.92
# Bytes that AdamW reads and writes a parameter: two moments, a master, a gradient, a 16-bit copy.
_OPTIMIZER_TRAFFIC = 30


@dataclass(frozen=True)
class Estimate:
    """A step of a plan.

    Args:
        mesh: of the ranks.
        batch: of the step.
        seconds: of a step.
        compute_seconds: of arithmetic in it, on the busiest rank.
        waiting_seconds: of messages that nothing hides.
        optimizer_seconds: of changing the weights.
        tokens_per_second: of all ranks.
        efficiency: against ranks that do their even share of the arithmetic and nothing else.
        traffic: what a rank sends.
        memory: of a rank.
    """

    mesh: Mesh
    batch: Batch
    seconds: float
    compute_seconds: float
    waiting_seconds: float
    optimizer_seconds: float
    tokens_per_second: float
    efficiency: float
    traffic: tuple[Traffic, ...]
    memory: RankMemory

    @property
    def sent_bytes(self) -> dict[str, float]:
        """Bytes that a rank sends in a step, by kind."""
        found: dict[str, float] = {}
        for one in self.traffic:
            name = f"{one.purpose}, {one.collective}"
            found[name] = found.get(name, 0.0) + one.sent_bytes
        return found


@dataclass(frozen=True)
class Choice:
    """Plans for some devices.

    Args:
        plans: those that are possible, the fastest first.
        refused: the others, with the reason.
    """

    plans: tuple[Estimate, ...]
    refused: tuple[tuple[Mesh, str], ...]

    @property
    def best(self) -> Estimate:
        """The fastest plan.

        Raises:
            ConfigError: none is possible.
        """
        if not self.plans:
            mesh, reason = self.refused[-1]
            raise ConfigError(
                f"no mesh is possible: {mesh}: {reason}; take more devices, fewer micro_sequences or "
                "activation_checkpointing=full"
            )
        return self.plans[0]


def predict(shape: Shape, mesh: Mesh, hardware: Hardware, batch: Batch) -> Estimate:
    """Predict a step.

    Args:
        shape: of the model.
        mesh: of the ranks.
        hardware: they run on.
        batch: of the step.

    Raises:
        ConfigError: the model cannot be shared so.
    """
    _check_shares(shape, mesh)
    rate = hardware.flops * hardware.flops_share * (1.0 if batch.compute_bytes == 2 else 0.5)
    forward, backward = _pass_seconds(shape, mesh, batch, rate)
    traffic = step_traffic(shape, mesh, batch)
    waiting = _waiting(shape, mesh, batch, hardware, traffic, forward, backward)
    parameters = shape.rank_parameters(mesh.tensor) // _owners(mesh)
    changing = parameters * _OPTIMIZER_TRAFFIC / hardware.memory_bandwidth
    seconds = forward + backward + waiting + changing
    tokens = batch.sequences * batch.sequence_length
    ideal = tokens * _flops(shape, batch).training / rate / mesh.size
    return Estimate(
        mesh,
        batch,
        seconds,
        forward + backward,
        waiting,
        changing,
        tokens / seconds,
        ideal / seconds,
        tuple(traffic),
        rank_memory(shape, mesh, batch, hardware.kind),
    )


def _check_shares(shape: Shape, mesh: Mesh) -> None:
    for name in ("num_attention_heads", "intermediate_size"):
        if getattr(shape, name) % mesh.tensor:
            raise ConfigError(f"{name} {getattr(shape, name)} is no multiple of tensor {mesh.tensor}")


def _owners(mesh: Mesh) -> int:
    """Ranks among which the optimiser's work is cut."""
    if mesh.engine == "deepspeed":
        return mesh.data if mesh.zero_stage else 1
    return mesh.shards


def _flops(shape: Shape, batch: Batch) -> TokenFlops:
    return model_flops_per_token(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        sequence_length=batch.sequence_length,
        head_positions_share=batch.mlm_probability,
    )


def _pass_seconds(shape: Shape, mesh: Mesh, batch: Batch, rate: float) -> tuple[float, float]:
    """Arithmetic of all forward and of all backward passes of a step, on the busiest rank."""
    flops = _flops(shape, batch)
    tokens = batch.rank_sequences(mesh.data) * batch.sequence_length
    again = batch.recomputed_share * (flops.linear + flops.attention)
    scale = tokens / mesh.tensor / rate
    return flops.forward * scale, (2 * flops.forward + again) * scale


def _waiting(
    shape: Shape,
    mesh: Mesh,
    batch: Batch,
    hardware: Hardware,
    traffic: Sequence[Traffic],
    forward: float,
    backward: float,
) -> float:
    """Seconds of messages that no arithmetic hides.

    Gathered weights come while the layer before is computed, gradients leave while the one before it is;
    the first gather and the last sum, of what is outside the layers, have nothing to hide behind.
    """
    count = batch.micro_batches(mesh.data)
    work = {"forward": forward, "backward": backward, "last backward": backward / count, "blocking": 0.0}
    messages = dict.fromkeys(work, 0.0)
    bare = 0.0
    outside = shape.rest_parameters(mesh.tensor) / shape.rank_parameters(mesh.tensor)
    for one in traffic:
        seconds = hardware.collective_seconds(
            one.collective, one.sent_bytes, one.size, one.stride, one.messages
        )
        # Weights in the backward pass are those of layers, and the last layer's are still there.
        alone = 0.0 if (one.purpose, one.phase) == ("weights", "backward") else outside
        alone = 1.0 if one.phase == "blocking" else alone
        bare += alone * seconds
        messages[one.phase] += (1 - alone) * seconds
    return bare + sum(max(0.0, messages[phase] - work[phase]) for phase in work)


def best_mesh(shape: Shape, num_devices: int, hardware: Hardware, batch: Batch) -> Choice:
    """All meshes of our own engines, the fastest first, and why others are out.

    Where a micro-batch does not fit, smaller ones are tried, then computing activations again.

    Args:
        shape: of the model.
        num_devices: all of which are to be used.
        hardware: they are of.
        batch: of the step; its micro-batch is the largest that is tried.

    Raises:
        ConfigError: there is no device.
    """
    if num_devices < 1:
        raise ConfigError(f"num_devices is {num_devices}, expected at least 1")
    plans, refused = [], []
    for mesh in _meshes(num_devices, hardware):
        found = _fitting(shape, mesh, hardware, batch)
        if isinstance(found, str):
            refused.append((mesh, found))
        else:
            plans.append(found)
    plans.sort(key=lambda plan: plan.seconds)
    return Choice(tuple(plans), tuple(refused))


def _meshes(num_devices: int, hardware: Hardware) -> Iterator[Mesh]:
    if num_devices == 1:
        yield Mesh("single")
        return
    yield Mesh("ddp", num_devices)
    for tensor in _powers(min(num_devices, hardware.devices_per_node)):
        data, rest = divmod(num_devices, tensor)
        if rest:
            continue
        for replicas in _powers(data):
            if data % replicas == 0 and (replicas < data or tensor > 1):
                yield Mesh("fsdp2", data, tensor, replicas)
                yield Mesh("fsdp2", data, tensor, replicas, reshard_after_forward=False)


def _powers(limit: int) -> list[int]:
    return [1 << number for number in range(limit.bit_length()) if 1 << number <= limit]


def _fitting(shape: Shape, mesh: Mesh, hardware: Hardware, batch: Batch) -> Estimate | str:
    """The fastest micro-batch that fits, or why there is none."""
    if batch.sequences < mesh.data:
        return f"{batch.sequences} sequences are too few for {mesh.data} shares"
    fits: list[Estimate] = []
    smallest = float("inf")
    for checkpointing in dict.fromkeys((batch.checkpointing, "full")):
        for micro in reversed(_powers(batch.micro_sequences)):
            plan = replace(batch, micro_sequences=micro, checkpointing=checkpointing)
            memory = rank_memory(shape, mesh, plan, hardware.kind).total
            smallest = min(smallest, memory)
            if memory <= _USABLE * hardware.memory_bytes:
                try:
                    fits.append(predict(shape, mesh, hardware, plan))
                except ConfigError as error:
                    return str(error)
                break
    if not fits:
        room = _USABLE * hardware.memory_bytes
        return f"needs {smallest / 1e9:.1f} GB a device, and {room / 1e9:.1f} GB are there"
    return min(fits, key=lambda plan: plan.seconds)


def scaling_table(
    shape: Shape,
    hardware: Hardware,
    batch: Batch,
    counts: Sequence[int] = DEVICE_COUNTS,
    *,
    sequences_per_device: int | None = None,
) -> list[tuple[int, Estimate | str]]:
    """The best plan for each number of devices.

    Args:
        shape: of the model.
        hardware: of the devices.
        batch: of the step, the same for all, unless the next is given.
        counts: numbers of devices.
        sequences_per_device: let the batch grow with the devices.

    Returns:
        Devices, and the plan or why there is none.
    """
    rows: list[tuple[int, Estimate | str]] = []
    for count in counts:
        step = (
            batch if sequences_per_device is None else replace(batch, sequences=sequences_per_device * count)
        )
        choice = best_mesh(shape, count, hardware, step)
        rows.append((count, choice.plans[0] if choice.plans else choice.refused[-1][1]))
    return rows
