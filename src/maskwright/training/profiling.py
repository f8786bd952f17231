"""Where the time of a training step goes, by part of the model, and a trace of it.

Nothing in the model knows of this. Ranges are put around modules, the optimiser and the stream from
outside for a few steps. What runs inside no range of its own is told apart by the name of its
operation, and a backward operation belongs where the forward operation with its sequence number does;
so functions with a backward pass of their own are counted as well. On the CPU each moment of a step
belongs to one part and the parts add up to the step. On a GPU the parts are the times of its kernels,
and what is left of the step is the time in which none ran.

Cost: profiled steps are slower, by some microseconds an operation; others cost nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from ..core.config import Config
from ..core.errors import StorageError
from ..core.files import TEMPORARY_MARK, storage_errors, write_json, write_text
from ..core.log import get_logger

__all__ = ["PARTS", "ProfileConfig", "Profiler", "attribute", "profile_table"]

log = get_logger(__name__)
PARTS = (
    *("embeddings", "attention", "feed-forward", "norms", "dropout", "head", "loss"),
    *("optimizer", "data", "other", "idle"),
)
_MARK = "maskwright:"
_STEP, _LAYER = f"{_MARK}step", "layer"
_BACKWARD = "autograd::engine::evaluate_function: "
# Parts by the name of a module, for the models of `maskwright.model`.
_MODULES = (
    (re.compile(r"(.*\.)?embeddings"), "embeddings"),
    (re.compile(r"(.*\.)?layers\.\d+"), _LAYER),
    (re.compile(r".*\.layers\.\d+\.(qkv|attention_output)"), "attention"),
    (re.compile(r".*\.layers\.\d+\.(intermediate|output)"), "feed-forward"),
    (re.compile(r".*\.layers\.\d+\.\w*norm"), "norms"),
    (re.compile(r"(.*\.)?(head_\w+|pooler|nsp_\w+)"), "head"),
)
# Parts by the name of an operation, within a layer and outside of any range.
_OPERATIONS: Mapping[str | None, Sequence[tuple[re.Pattern[str], str]]] = {
    _LAYER: (
        (re.compile(r"attention|_Linear$", re.IGNORECASE), "attention"),
        (re.compile(r"feed_?forward|gelu", re.IGNORECASE), "feed-forward"),
        (re.compile(r"dropout", re.IGNORECASE), "dropout"),
        (re.compile(r"layer_?norm", re.IGNORECASE), "norms"),
    ),
    None: (
        (re.compile(r"cross_?entropy|nll_loss", re.IGNORECASE), "loss"),
        (re.compile(r"gelu|tanh", re.IGNORECASE), "head"),
        (re.compile(r"^Optimizer\.step"), "optimizer"),
    ),
}
_TOP = 8


class ProfileConfig(Config):
    """Whether some steps are profiled, and which."""

    steps: int = Field(0, ge=0, le=100, description="steps to profile; 0: none")
    first: int = Field(3, ge=1, description="step of this start, from 1, at which profiling begins")


@dataclass
class _Spent:
    """Time of a part, in microseconds over all profiled steps."""

    forward: float = 0.0
    backward: float = 0.0
    operations: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, amount: float, *, backward: bool) -> None:
        if backward:
            self.backward += amount
        else:
            self.forward += amount
        self.operations[name] = self.operations.get(name, 0.0) + amount


class Profiler:
    """Profiles a few steps of a run and writes `profile/` into its folder.

    Args:
        config: which steps.
        folder: the run's folder.
        engine: its `step` is the optimiser, its `model` is cut into parts.
        stream: its `next_step` is the data.
    """

    def __init__(self, config: ProfileConfig, folder: Path, engine: Any, stream: Any) -> None:
        self.config, self.folder = config, folder / "profile"
        self.engine, self.stream = engine, stream
        self._on_gpu = any(parameter.is_cuda for parameter in engine.model.parameters())
        self._seen = 0
        self._numbers: list[int] = []
        self._session: contextlib.ExitStack | None = None
        self._profile: Any = None

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Put around one step of the loop, from the batch to the changed weights.

        Args:
            number: of the step, for the table.
        """
        self._seen += 1
        first = self.config.first
        if not first <= self._seen < first + self.config.steps:
            yield
            return
        if self._session is None:
            self._start()
        with record_function(_STEP):
            yield
            if self._on_gpu:
                torch.cuda.synchronize()
        self._numbers.append(number)
        if self._seen == first + self.config.steps - 1:
            self.close()

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._on_gpu:
            activities.append(ProfilerActivity.CUDA)
        with contextlib.ExitStack() as session:
            session.enter_context(_ranges(self.engine.model))
            session.enter_context(_wrapped(self.engine, "step", "optimizer"))
            session.enter_context(_wrapped(self.stream, "next_step", "data"))
            # acc_events keeps the events of a session that is stopped by hand.
            self._profile = session.enter_context(profile(activities=activities, acc_events=True))
            self._session = session.pop_all()

    def close(self) -> None:
        """Stop and write what was profiled, also when the run ends before its last profiled step.

        A storage that refuses costs the profile and not the run.
        """
        if self._session is None:
            return
        self._session.close()
        self._session = None
        if not self._numbers:
            return
        table = profile_table(attribute(self._profile.events()), self._numbers)
        try:
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_trace(self._profile, self.folder / "trace.json.gz")
            write_json(self.folder / "table.json", table)
            write_text(self.folder / "table.md", _markdown(table))
            log.info("profile of %d steps: %s", len(self._numbers), self.folder / "table.md")
        except StorageError as error:
            log.warning("no profile was written: %s", error)


def _write_trace(session: Any, path: Path) -> None:
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}.json.gz")
    try:
        session.export_chrome_trace(str(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _ranges(model: nn.Module) -> Iterator[None]:
    """Put a range around each module that is a part."""
    handles = []
    for name, module in model.named_modules():
        part = next((part for pattern, part in _MODULES if pattern.fullmatch(name)), None)
        if part is not None:
            handles += _range_around(module, part)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _range_around(module: nn.Module, part: str) -> list[Any]:
    open_ones: list[Any] = []

    def enter(*_: Any) -> None:
        open_ones.append(record_function(_MARK + part))
        open_ones[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ones.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]


@contextlib.contextmanager
def _wrapped(owner: Any, name: str, part: str) -> Iterator[None]:
    """Put a range around a method of one object."""
    method: Callable[..., Any] = getattr(owner, name)

    def within(*arguments: Any, **options: Any) -> Any:
        with record_function(_MARK + part):
            return method(*arguments, **options)

    setattr(owner, name, within)
    try:
        yield
    finally:
        delattr(owner, name)


def attribute(events: Iterable[Any]) -> tuple[dict[str, _Spent], float]:
    """Give each operation of the profiled steps to a part.

    Args:
        events: `FunctionEvent`s of `torch.profiler`, as a tree through `cpu_children`.

    Returns:
        Time by part, and the time of all steps, in microseconds.
    """
    known = [event for event in events if event.device_type.name == "CPU"]
    steps = [event for event in known if event.name == _STEP]
    account = _Account(uses_device=any(event.kernels for event in known))
    for step in steps:
        account.note_forward(step, None)
    for step in steps:
        account.add(step, None, backward=False)
    wall = float(sum(step.time_range.elapsed_us() for step in steps))
    if account.uses_device:
        busy = sum(part.forward + part.backward for part in account.spent.values())
        account.spent["idle"].add("no kernel runs", max(0.0, wall - busy), backward=False)
    return account.spent, wall


class _Account:
    """Times by part, filled by two walks over the tree: backward operations need all forward ones first."""

    def __init__(self, *, uses_device: bool) -> None:
        self.uses_device = uses_device
        self.spent = {part: _Spent() for part in PARTS}
        # By thread and sequence number; of several forward operations the last one made the node.
        self._forward_parts: dict[tuple[int, int], str | None] = {}

    def note_forward(self, event: Any, context: str | None) -> None:
        """Remember to which part each forward operation belongs."""
        part = _part_of(event.name, context)
        if event.sequence_nr >= 0 and not event.fwd_thread:
            self._forward_parts[event.thread, event.sequence_nr] = part
        for child in event.cpu_children:
            self.note_forward(child, part)

    def add(self, event: Any, context: str | None, *, backward: bool) -> None:
        """Add what an operation took by itself, then what it called."""
        part = _part_of(event.name, context)
        if event.name.startswith(_BACKWARD):
            backward = True
            part = self._forward_parts.get((event.fwd_thread, event.sequence_nr), context)
        if self.uses_device:
            amount = float(sum(kernel.duration for kernel in event.kernels))
        else:
            inner = sum(child.time_range.elapsed_us() for child in event.cpu_children)
            amount = event.time_range.elapsed_us() - inner
        if amount:
            name = event.name.removeprefix(_BACKWARD).removeprefix(_MARK)
            self.spent[part if part in self.spent else "other"].add(name, amount, backward=backward)
        for child in event.cpu_children:
            self.add(child, part, backward=backward)


def _part_of(name: str, context: str | None) -> str | None:
    """The part of an operation by its name, within the part of what calls it."""
    if name == _STEP:
        return None
    if name.startswith(_MARK):
        return name.removeprefix(_MARK)
    for pattern, part in _OPERATIONS.get(context, ()):
        if pattern.search(name):
            return part
    return context


def profile_table(found: tuple[Mapping[str, _Spent], float], numbers: Sequence[int]) -> dict[str, Any]:
    """The numbers of the table, as plain values.

    Args:
        found: what `attribute` returns.
        numbers: numbers of the profiled steps.

    Returns:
        `steps` (their numbers), `step_ms`, and `parts`: for each `part`, `share` (all add up to 1),
        `ms` a step, `forward_ms`, `backward_ms`, and its largest `operations`, with `name` and `ms`.
    """
    spent, _ = found
    total = max(sum(part.forward + part.backward for part in spent.values()), 1e-9)
    scale = 1e-3 / len(numbers)
    rows = []
    for name, part in spent.items():
        amount = part.forward + part.backward
        largest = sorted(part.operations.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
        if amount:
            rows.append(
                {
                    "part": name,
                    "share": amount / total,
                    "ms": amount * scale,
                    "forward_ms": part.forward * scale,
                    "backward_ms": part.backward * scale,
                    "operations": [{"name": each, "ms": spent_us * scale} for each, spent_us in largest],
                }
            )
    return {"steps": list(numbers), "step_ms": total * scale, "parts": rows}


def _markdown(table: Mapping[str, Any]) -> str:
    steps = table["steps"]
    shown = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    lines = [
        f"# Where the time of {shown} went",
        "",
        "| part | share | ms a step | forward | backward | largest operations |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in table["parts"]:
        largest = ", ".join(f"`{each['name']}` {each['ms']:.1f}" for each in row["operations"][:3])
        times = " | ".join(f"{row[name]:.1f}" for name in ("ms", "forward_ms", "backward_ms"))
        lines.append(f"| {row['part']} | {row['share']:.1%} | {times} | {largest} |")
    lines += [f"| all | 100.0% | {table['step_ms']:.1f} | | | |", ""]
    return "\n".join(lines)
