"""One task as a pass has it, and what it finds around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ndif_batch.engine.given import Prompted
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.takes import TAKE
from ndif_batch.errors import NdifBatchError, TaskError
from ndif_batch.graph.nodes import Node, Value

if TYPE_CHECKING:
    from ndif_batch.engine.access import Noted


class Touchpoint(Protocol):
    """A site while a pass is at it; see :class:`ndif_batch.engine.access.SiteAccess`."""

    def take(self, lanes: Numbers, index: tuple[Any, ...]) -> Any:
        """What ``index`` takes of each task's run."""

    def take_one(self, lane: int, index: tuple[Any, ...]) -> Any:
        """The same of one run."""

    def put(self, lanes: Numbers, index: tuple[Any, ...], new: Any) -> None:
        """Overwrites ``index`` of each task's run."""

    def put_one(self, lane: int, index: tuple[Any, ...], new: Any) -> None:
        """The same of one run."""

    def note(self) -> Noted:
        """What all runs hold there, for gradients by it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What tasks share: weights and modules of the model, constants, the NaN policy.

    ``device`` is where new tensors are made; ``spread`` says that the model's own lie on several.
    """

    weight: Callable[[str], torch.Tensor]
    call: Callable[[str, tuple[Any, ...]], Any]
    constant: Callable[[str], torch.Tensor]
    device: torch.device
    spread: bool = False
    refuse_nan: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A task of a cohort: its place among the tasks that were given, its seed, bindings, and what its runs begin with.

    ``names`` has its own names of what its program saves and prints, where these are others.
    """

    index: int
    seed: int
    bindings: Mapping[str, Value]
    prompts: tuple[Prompted, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def length(self, run: int) -> int:
        """How many tokens a run begins with: those of its prompt, or the one of a step."""
        return len(self.prompts[run]) if run < len(self.prompts) else 1


def task_error(node: int, what: Node, error: Exception) -> TaskError:
    """What went wrong with a task at a node of its submitted graph, in one line."""
    reason = (
        error.message if isinstance(error, NdifBatchError) else (str(error).splitlines() or [type(error).__name__])[0]
    )
    return TaskError(f"node {node} ({'getitem' if what.op == TAKE else what.op}): {reason}", node=node)
