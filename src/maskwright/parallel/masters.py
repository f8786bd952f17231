"""The fp32 weights that the optimiser changes, behind the weights that the model computes on.

In fp32 they are the same tensors. In fp16, and in bf16 on a GPU, the masters are fp32 copies, cast to
the model once a step. In bf16 on the CPU a master is kept as the bf16 weight and the 16 bits that
are missing from it: nothing is held twice, which saves two bytes a parameter. The optimiser then
sees one parameter after the other, put together in a buffer that is used again, so its temporary
memory is that of one parameter, or of one piece of it where the optimiser works on each value alone.

Cost of a step on the CPU: 26 bytes of memory traffic a parameter with AdamW, about as many as with
whole copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .shards import Shards

__all__ = [
    "CopiedMasters",
    "MakeOptimizer",
    "Masters",
    "SplitMasters",
    "forget_step",
    "make_masters",
    "set_rate",
]

# Values of a piece: small enough for the holes that activations leave in the heap.
_PIECE_VALUES = 1 << 22
Named = Iterable[tuple[str, nn.Parameter]]


class MakeOptimizer(Protocol):
    """Makes an optimiser of named fp32 parameters; a seam because parallel knows no optimiser.

    An attribute `elementwise` that is true says that each value is changed for itself, so that a
    large table may be cut into pieces.
    """

    def __call__(self, named: Named, shards: Shards | None = None, /) -> torch.optim.Optimizer:
        """The optimiser, of whole parameters, or of shards over ranks."""


class Masters(Protocol):
    """What the engine asks of the weights; a seam because precisions keep them differently."""

    optimizer: torch.optim.Optimizer

    def collect(self) -> None:
        """Make room for the gradient of a further micro-batch."""

    def gradients(self) -> dict[str, Tensor]:
        """The gradient of the step so far, by parameter."""

    def take_gradient(self, number: int, out: Tensor) -> bool:
        """Write the gradient of the step so far of a parameter into a vector; whether there is one."""

    def put_gradient(self, number: int, values: Tensor) -> None:
        """Replace the gradient of a parameter by the values of a vector."""

    def apply(self, lr: float, factor: float) -> None:
        """Change the weights by the gradients times a factor."""

    def clear(self) -> None:
        """Forget the gradients."""

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by parameter."""

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimiser remembers, by parameter."""

    def load(self, weights: dict[str, Tensor], state: dict[str, dict[str, Any]]) -> None:
        """Take over weights and state, whose names and shapes were checked."""


def make_masters(model: nn.Module, make_optimizer: MakeOptimizer, precision: str) -> Masters:
    """Choose how to keep the masters, and cast the model.

    Args:
        model: fp32, on its device; cast in place.
        make_optimizer: makes the optimiser.
        precision: `fp32`, `bf16` or `fp16`.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if precision == "bf16" and on_cpu:
        return SplitMasters(model, make_optimizer)
    return CopiedMasters(model, make_optimizer, precision)


def _add_up(parts: Iterable[Tensor | None], out: Tensor) -> bool:
    """The sum of those parts that are there, flat, in the type of `out`; zeros where none is."""
    found = [part.reshape(-1) for part in parts if part is not None]
    if not found:
        out.zero_()
        return False
    out.copy_(found[0])
    for part in found[1:]:
        _add_pieces(out, part)
    return True


def _add_pieces(total: Tensor, values: Tensor) -> None:
    """Add what may be of another type, which the CPU casts before: so not all of it at a time."""
    flat, more = total.view(-1), values.reshape(-1)
    for start in range(0, flat.numel(), _PIECE_VALUES):
        flat[start : start + _PIECE_VALUES] += more[start : start + _PIECE_VALUES]


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group of an optimiser its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def forget_step(state: dict[str, Any]) -> None:
    """Counts that were made while the state was allocated are none."""
    for key, value in state.items():
        if key == "step":
            state[key] = value.zero_() if isinstance(value, Tensor) else 0


class CopiedMasters:
    """fp32 masters as tensors of their own, or the model's own weights where it computes in fp32.

    Args:
        model: fp32; cast in place.
        make_optimizer: makes the optimiser.
        precision: `fp32`, `bf16` or `fp16`.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer, precision: str) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.masters = self.parameters
        if precision != "fp32":
            # The masters take over the fp32 memory, so both are never held twice.
            self.masters = [nn.Parameter(parameter.data) for parameter in self.parameters]
            model.to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
        self.optimizer = make_optimizer(zip(self.names, self.masters, strict=True))
        self._make_state()

    @torch.no_grad()
    def _make_state(self) -> None:
        """Let the optimiser allocate its state now, before activations break memory up.

        A step with no gradient and no rate changes no weight and leaves means of zero; what is
        left of it is the count of steps.
        """
        set_rate(self.optimizer, 0.0)
        for master in self.masters:
            master.grad = torch.zeros_like(master)
            self.optimizer.step()
            master.grad = None
        for state in self.optimizer.state.values():
            forget_step(state)

    @torch.no_grad()
    def collect(self) -> None:
        """Add the model's gradients up in fp32."""
        if self.masters is self.parameters:
            return
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients in fp32."""
        self.collect()
        named = zip(self.names, self.masters, strict=True)
        return {name: master.grad for name, master in named if master.grad is not None}

    @torch.no_grad()
    def take_gradient(self, number: int, out: Tensor) -> bool:
        """Write a gradient into a vector; whether there is one."""
        parameter, master = self.parameters[number], self.masters[number]
        return _add_up([master.grad, None if master is parameter else parameter.grad], out)

    @torch.no_grad()
    def put_gradient(self, number: int, values: Tensor) -> None:
        """Replace a gradient; a 16-bit gradient becomes an fp32 one."""
        parameter, master = self.parameters[number], self.masters[number]
        if master is not parameter:
            parameter.grad = None
        if master.grad is None:
            master.grad = torch.empty_like(master)
        master.grad.view(-1).copy_(values)

    @torch.no_grad()
    def apply(self, lr: float, factor: float) -> None:
        """Change the weights by the gradients times a factor."""
        if factor != 1:
            torch._foreach_mul_(list(self.gradients().values()), factor)
        set_rate(self.optimizer, lr)
        self.optimizer.step()
        self._cast()

    def _cast(self) -> None:
        if self.masters is not self.parameters:
            torch._foreach_copy_(list[Tensor](self.parameters), list[Tensor](self.masters))

    def clear(self) -> None:
        """Forget the gradients."""
        for tensor in (*self.parameters, *self.masters):
            tensor.grad = None

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by parameter."""
        return {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)}

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimiser remembers, by parameter."""
        named = zip(self.names, self.masters, strict=True)
        return {name: dict(self.optimizer.state[master]) for name, master in named}

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, dict[str, Any]]) -> None:
        """Take over weights and state."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(weights[name])
            for key, value in state.get(name, {}).items():
                mine = self.optimizer.state[master].get(key)
                if isinstance(mine, Tensor):
                    mine.copy_(value)
                else:
                    self.optimizer.state[master][key] = value
        self._cast()


def _join(weight: Tensor, rest: Tensor, out: Tensor) -> None:
    """The fp32 number of which a bf16 weight is the rounded upper half."""
    bits = out.view(torch.int32)
    bits.copy_(weight.view(torch.int16))
    bits.bitwise_left_shift_(16).add_(rest)


def _split(master: Tensor, weight: Tensor, rest: Tensor, spare: Tensor) -> None:
    """Round to bf16, half away from zero, and keep what is missing from it; `spare` is overwritten."""
    bits, upper = master.view(torch.int32), spare.view(torch.int32)
    torch.add(bits, 1 << 15, out=upper)
    upper.bitwise_right_shift_(16)
    weight.view(torch.int16).copy_(upper)
    upper.bitwise_left_shift_(16)
    rest.copy_(torch.sub(bits, upper, out=upper))


@dataclass
class _Piece:
    """Some rows of a parameter, as the optimiser sees them; without data but during its turn."""

    rows: slice
    rest: Tensor
    master: nn.Parameter
    empty: Tensor


@dataclass
class _Split:
    """A bf16 parameter, the missing bits, its pieces, and its gradient where it was added up."""

    name: str
    parameter: nn.Parameter
    rest: Tensor
    pieces: list[_Piece] = field(default_factory=list)
    total: Tensor | None = None

    @property
    def gradient(self) -> Tensor | None:
        return self.parameter.grad if self.total is None else self.total


class SplitMasters:
    """bf16 weights on the CPU and the bits that make fp32 numbers of them.

    Args:
        model: fp32; cast in place, rounding halves away from zero.
        make_optimizer: makes the optimiser.
    """

    def __init__(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        self.elementwise = bool(getattr(make_optimizer, "elementwise", False))
        self.parts = [self._cut(name, parameter) for name, parameter in model.named_parameters()]
        size = max(piece.empty.numel() for part in self.parts for piece in part.pieces)
        self._master, self._spare = torch.empty(size), torch.empty(size)
        self.optimizer = make_optimizer(
            (part.name, piece.master) for part in self.parts for piece in part.pieces
        )
        self._make_state()

    def _cut(self, name: str, parameter: nn.Parameter) -> _Split:
        """Replace an fp32 parameter by its halves; its fp32 memory is free afterwards."""
        values = parameter.data
        weight = torch.empty(values.shape, dtype=torch.bfloat16)
        rest = torch.empty(values.shape, dtype=torch.int16)
        _split(values, weight, rest, torch.empty_like(values))
        parameter.data = weight
        row_values = max(1, values.numel() // max(1, values.shape[0]))
        step = max(1, _PIECE_VALUES // row_values) if self.elementwise else values.shape[0]
        part = _Split(name, parameter, rest)
        for start in range(0, values.shape[0], step):
            rows = slice(start, min(start + step, values.shape[0]))
            empty = torch.empty(1).expand(rest[rows].shape)
            part.pieces.append(_Piece(rows, rest[rows], nn.Parameter(empty), empty))
        return part

    def _all_pieces(self) -> Iterator[tuple[_Split, _Piece]]:
        return ((part, piece) for part in self.parts for piece in part.pieces)

    @torch.no_grad()
    def _make_state(self) -> None:
        """As for copies; the pieces of a parameter share one tensor, which leaves in checkpoints."""
        set_rate(self.optimizer, 0.0)
        for part in self.parts:
            whole: dict[str, Tensor] = {}
            for piece in part.pieces:
                piece.master.data = self._buffer(self._master, piece).zero_()
                piece.master.grad = self._buffer(self._spare, piece).zero_()
                self.optimizer.step()
                piece.master.data, piece.master.grad = piece.empty, None
                state = self.optimizer.state[piece.master]
                forget_step(state)
                for key, value in state.items():
                    if len(part.pieces) > 1 and isinstance(value, Tensor) and value.dim():
                        full = whole.setdefault(key, torch.zeros(part.rest.shape, dtype=value.dtype))
                        state[key] = full[piece.rows]

    def _buffer(self, buffer: Tensor, piece: _Piece) -> Tensor:
        return buffer[: piece.empty.numel()].view(piece.empty.shape)

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradients of micro-batches up in fp32; a single one stays in bf16."""
        for part in self.parts:
            if part.parameter.grad is None:
                continue
            if part.total is None:
                part.total = part.parameter.grad.float()
            else:
                _add_pieces(part.total, part.parameter.grad)
            part.parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients, in bf16 for a single micro-batch."""
        if any(part.total is not None for part in self.parts):
            self.collect()
        return {part.name: part.gradient for part in self.parts if part.gradient is not None}

    @torch.no_grad()
    def take_gradient(self, number: int, out: Tensor) -> bool:
        """Write a gradient into a vector; whether there is one."""
        part = self.parts[number]
        return _add_up([part.total, part.parameter.grad], out)

    @torch.no_grad()
    def put_gradient(self, number: int, values: Tensor) -> None:
        """Replace a gradient; that of a single micro-batch stays in bf16, rounded once."""
        part = self.parts[number]
        if part.total is not None:
            part.parameter.grad = None
        assert part.gradient is not None
        part.gradient.view(-1).copy_(values)

    @torch.no_grad()
    def apply(self, lr: float, factor: float) -> None:
        """Change the weights by the gradients times a factor, one piece at a time."""
        set_rate(self.optimizer, lr)
        for part, piece in self._all_pieces():
            if part.gradient is None:
                continue
            weight = part.parameter.data[piece.rows]
            master, spare = self._buffer(self._master, piece), self._buffer(self._spare, piece)
            _join(weight, piece.rest, master)
            spare.copy_(part.gradient[piece.rows])
            if factor != 1:
                spare.mul_(factor)  # a product of bf16 numbers would be rounded to bf16
            piece.master.data, piece.master.grad = master, spare
            self.optimizer.step()
            piece.master.data, piece.master.grad = piece.empty, None
            _split(master, weight, piece.rest, spare)

    def clear(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.parameter.grad = part.total = None

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by parameter, put together anew at every call."""
        found = {}
        for part in self.parts:
            found[part.name] = torch.empty(part.rest.shape)
            _join(part.parameter.data, part.rest, found[part.name])
        return found

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimiser remembers, by parameter; tensors of pieces are shown whole."""
        found = {}
        for part in self.parts:
            state = dict(self.optimizer.state[part.pieces[0].master])
            if len(part.pieces) > 1:
                state = {key: _whole(value, part.rest.shape) for key, value in state.items()}
            found[part.name] = state
        return found

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, dict[str, Any]]) -> None:
        """Take over weights and state."""
        for part, piece in self._all_pieces():
            master, spare = self._buffer(self._master, piece), self._buffer(self._spare, piece)
            master.copy_(weights[part.name][piece.rows])
            _split(master, part.parameter.data[piece.rows], piece.rest, spare)
            mine = self.optimizer.state[piece.master]
            for key, value in state.get(part.name, {}).items():
                if isinstance(value, Tensor) and value.dim():
                    mine[key].copy_(value[piece.rows])
                elif isinstance(mine.get(key), Tensor):
                    mine[key].copy_(value)
                else:
                    mine[key] = value


def _whole(value: Any, shape: torch.Size) -> Any:
    """The tensor of which the first rows are given."""
    if isinstance(value, Tensor) and value.dim() and value._base is not None:
        return value._base.view(shape)
    return value
