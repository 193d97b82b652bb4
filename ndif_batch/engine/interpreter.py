"""Carries out one task's nodes as the passes come by, and keeps what goes wrong to that task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import torch

from ndif_batch.engine.kernels import KERNELS
from ndif_batch.engine.program import Program
from ndif_batch.errors import NdifBatchError, TaskError
from ndif_batch.graph.nodes import Arg, Node, NodeRef, SliceArg, TensorRef, inputs
from ndif_batch.graph.operations import OPERATIONS

PRINTED_CHARACTERS = 2000


class Touchpoint(Protocol):
    """A site while a pass is at it, as the interpreter needs it."""

    def read(self, task: TaskRun, node: int) -> Any:
        """What the task's run sees here."""

    def write(self, task: TaskRun, node: int, index: tuple[Any, ...], value: Any) -> None:
        """Overwrites what the task's run sees here."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What tasks share: weights and modules of the model, constants, the NaN policy.

    ``device`` is where new tensors are made; ``spread`` says that the model's own lie on several.
    """

    weight: Callable[[str], torch.Tensor]
    call: Callable[[str, tuple[Any, ...]], Any]
    constants: Mapping[str, torch.Tensor]
    device: torch.device
    spread: bool = False
    refuse_nan: bool = False


@dataclass(slots=True)
class TaskRun:
    """One task on its way: the values that are still needed, its saves so far, its error if it failed."""

    index: int
    seed: int
    program: Program
    around: Surroundings
    values: dict[int, Any] = field(default_factory=dict)
    saves: dict[str, torch.Tensor] = field(default_factory=dict)
    prints: list[tuple[str, str]] = field(default_factory=list)
    error: TaskError | None = None
    _left: list[int] = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self._left = list(self.program.uses)

    def due(self, stage: int) -> set[int]:
        """Where in pass ``stage`` this task has something to do."""
        return {entry.order for entry in self.program.entries if entry.stage == stage and entry.order >= 0}

    def advance(self, stage: int, order: int, point: Touchpoint | None = None) -> None:
        """Carries out every node that is due at ``(stage, order)``; an error ends this task and no other."""
        entries = self.program.entries
        done = []
        while self.error is None and self._next < len(entries):
            entry = entries[self._next]
            if (entry.stage, entry.order) != (stage, order):
                break
            self._next += 1
            done.append(entry.node)
            self._carry_out(entry.node, point)
        if self.error is not None:
            self.values.clear()
        elif point is not None:
            self._keep_own_copies(done)

    def _carry_out(self, i: int, point: Touchpoint | None) -> None:
        node = self.program.graph.nodes[i]
        try:
            value = self._compute(i, node, point)
            if self.around.refuse_nan and _has_nan(value):
                raise ValueError("its value holds NaN")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a user's node raises is that task's error alone
            self.error = _task_error(self.program.origin[i], node, error)
            return
        if self._left[i]:
            self.values[i] = value
        for j in inputs(node):
            self._left[j] -= 1
            if not self._left[j]:
                del self.values[j]

    def _compute(self, i: int, node: Node, point: Touchpoint | None) -> Any:
        args = tuple(self._value(arg) for arg in node.args)
        match node.op:
            case "read":
                assert point is not None
                return point.read(self, i)
            case "write":
                assert point is not None
                point.write(self, i, tuple(self._value(part) for part in node.index or ()), args[0])
                return None
            case "weight":
                return self.around.weight(str(node.site))
            case "call":
                return self.around.call(str(node.site), args)
            case "save":
                self.saves[str(node.name)] = _saved(args[0])
                return None
            case "print":
                self.prints.append((str(node.name), _shown(args[0])))
                return None
            case "stop":
                return None
        keywords = {name: self._value(arg) for name, arg in node.kwargs}
        if OPERATIONS[node.op].random:
            keywords["generator"] = self._generator(i)
        if self.around.spread:
            args = _on_one_device(args)
        return KERNELS[node.op](*args, device=self.around.device, **keywords)

    def _value(self, arg: Arg) -> Any:
        match arg:
            case NodeRef(node):
                return self.values[node]
            case TensorRef(digest):
                return self.around.constants[digest].to(self.around.device)
            case SliceArg(start, stop, step):
                return slice(self._value(start), self._value(stop), self._value(step))
            case tuple():
                return tuple(self._value(item) for item in arg)
        return arg

    def _generator(self, i: int) -> torch.Generator:
        """Random numbers depend on the task's seed and the node alone, never on the neighbours or the device."""
        name = f"{self.seed}/{self.program.origin[i]}".encode()
        return torch.Generator().manual_seed(int.from_bytes(blake2b(name, digest_size=7).digest()))

    def _keep_own_copies(self, nodes: list[int]) -> None:
        """What outlives this moment must not hold, or change with, the pass's own tensors."""
        for i in nodes:
            if i in self.values:
                self.values[i] = _own(self.values[i])


def _on_one_device(args: Any) -> Any:
    """The arguments with every tensor on the device of the first one."""
    device: torch.device | None = None

    def moved(value: Any) -> Any:
        nonlocal device
        if isinstance(value, torch.Tensor):
            device = device or value.device
            return value.to(device)
        return tuple(moved(item) for item in value) if isinstance(value, tuple) else value

    return moved(args)


def _own(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole and value._base is None else value.clone()
    return tuple(_own(item) for item in value) if isinstance(value, tuple) else value


def _saved(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, bool | int | float):
        return torch.tensor(value)
    raise TypeError(f"only a tensor or a number can be saved, not {type(value).__name__}")


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return str(value)[:PRINTED_CHARACTERS]


def _has_nan(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(torch.isnan(value).any())
    return any(_has_nan(item) for item in value) if isinstance(value, tuple) else False


def _task_error(node: int, what: Node, error: Exception) -> TaskError:
    reason = (
        error.message if isinstance(error, NdifBatchError) else (str(error).splitlines() or [type(error).__name__])[0]
    )
    return TaskError(f"node {node} ({what.op}): {reason}", node=node)
