"""Tasks of one program go through a pass together: each node is carried out once, for all of them.

What cannot be done for all at once is done task by task; what goes wrong in one task ends that task and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from ndif_batch.engine import vectorised
from ndif_batch.engine.access import Noted
from ndif_batch.engine.cache import Past
from ndif_batch.engine.choosing import generator_of
from ndif_batch.engine.kernels import KERNELS
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.program import Program
from ndif_batch.engine.saves import landed, saved, shown
from ndif_batch.engine.schedule import JOINED
from ndif_batch.engine.stepping import ABSENT, Beginning, Steps, drawn_alone, likeliest_of_each, on_device, taken
from ndif_batch.engine.takes import TAKE
from ndif_batch.engine.targets import BACKWARD, GRAD
from ndif_batch.engine.tasks import Member, Surroundings, Touchpoint, task_error
from ndif_batch.engine.values import (
    Each,
    Rows,
    column,
    compact,
    has_nan,
    is_scalar,
    joined,
    joined_steps,
    leaves,
    of_each,
    of_task,
    of_tasks,
    on_one_device,
    total,
    varies,
)
from ndif_batch.errors import TaskError
from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, SliceArg, TensorRef, inputs
from ndif_batch.graph.operations import OPERATIONS

IN_STEP: Final = ("write", BACKWARD)


@dataclass
class Cohort:
    """Tasks on their way; ``members`` are those that are still well.

    ``lanes`` has, for each stage and run, the lane of each member. ``errors`` are by the index of a task. ``unsound``
    has, for each stage in which lanes borrow, a number of each lane: 0 if it held nothing but finite values.
    ``stage`` is the pass to which they have come.
    """

    program: Program
    members: list[Member]
    around: Surroundings
    stage: int = 0
    lanes: dict[tuple[int, int], Numbers] = field(default_factory=dict)
    errors: dict[int, TaskError] = field(default_factory=dict)
    unsound: dict[int, torch.Tensor] = field(default_factory=dict)
    _parted: bool = False
    _saves: dict[str, Any] = field(default_factory=dict)
    _prints: list[tuple[str, Any]] = field(default_factory=list)
    _values: dict[int, Any] = field(default_factory=dict)
    _gradients: Mapping[int, torch.Tensor] = field(default_factory=dict)
    _next: int = 0
    _halted: int = -1

    def __post_init__(self) -> None:
        self._left = list(self.program.uses)
        self._steps = Steps(self.program)
        names = self.program.params
        self._columns = {name: column([member.bindings[name] for member in self.members]) for name in names}

    @property
    def tasks(self) -> list[int]:
        """The indices of its tasks, those that have failed among them."""
        return [*self.errors, *(member.index for member in self.members)]

    @property
    def is_differentiated(self) -> bool:
        """Whether gradients go back through the pass that comes next."""
        return self.stage in self.program.differentiated

    @property
    def goes_on(self) -> bool:
        """Whether one of the members needs a further pass."""
        return bool(self.members) and any(
            visit.stage >= self.stage and visit.run not in self.over for visit in reversed(self.program.visits)
        )

    def advance(self, stage: int, order: int, point: Touchpoint | None = None) -> bool:
        """Carries out the nodes that are due at ``(stage, order)``, up to the next one that is done in step with other
        cohorts; whether one is waiting.

        They may have equal runs in the same lanes: before one of them writes there, all have read. And there is one
        backward for all.
        """
        entries = self.program.entries
        done: list[int] = []
        while self.members and self._next < len(entries):
            entry = entries[self._next]
            if (entry.stage, entry.order) != (stage, order):
                break
            if self.program.graph.nodes[entry.node].op in IN_STEP and self._halted != self._next:
                self._halted = self._next
                break
            self._next += 1
            done.append(entry.node)
            self._carry_out(entry.node, stage, point)
        for i in done:
            if i in self._values:
                self._values[i] = compact(self._values[i])
        return bool(self.members) and self._halted == self._next

    def results(self) -> Iterator[tuple[Member, dict[str, torch.Tensor], tuple[tuple[str, str], ...]]]:
        """What each member that is well has saved and printed; no two share memory."""
        count = len(self.members)
        alone = count == 1 and not self._parted
        saved = {
            name: of_each(value, count) if varies(value) or alone else [value.clone() for _ in self.members]
            for name, value in self._saves.items()
        }
        for place, member in enumerate(self.members):
            own = member.names
            saves = {own.get(name, name): values[place] for name, values in saved.items()}
            yield member, saves, tuple([(own.get(name, name), of_task(text, place)) for name, text in self._prints])

    def scalars(self) -> Iterator[torch.Tensor]:
        """What the backward that is waiting begins with; members whose value is no scalar leave."""
        i = self.program.entries[self._next].node
        (scalar,) = inputs(self.program.graph.nodes[i])
        value = self._values[scalar]
        wrong = [place for place, own in enumerate(of_each(value, len(self.members))) if not is_scalar(own)]
        self._end(i, {place: ValueError("backward needs one floating-point number") for place in wrong})
        for leaf in leaves(self._values[scalar] if self.members else ()):
            tensors = leaf.values if isinstance(leaf, Rows) else (leaf.stacked if isinstance(leaf, Each) else leaf,)
            yield from (tensor for tensor in tensors if tensor.requires_grad)

    def differentiated(self) -> Iterator[torch.Tensor]:
        """By what the backward that is waiting differentiates."""
        backward = self.program.entries[self._next].node
        for node in self.program.graph.nodes:
            if node.op == GRAD and node.args[1] == NodeRef(backward):
                for _, noted in self._value(node.args[0]):
                    yield from noted.tensors

    def take_gradients(self, found: Mapping[int, torch.Tensor]) -> None:
        """Gradients by what :meth:`differentiated` gave, by its identity; those that are zero may be absent."""
        own = {id(tensor) for tensor in self.differentiated()}
        self._gradients = {key: gradient for key, gradient in found.items() if key in own}

    @property
    def backwards_left(self) -> int:
        """How many there are yet to come, the one that is waiting included."""
        later = self.program.entries[self._next :] if self.members else ()
        return sum(self.program.graph.nodes[entry.node].op == BACKWARD for entry in later)

    def unsound_places(self) -> set[int]:
        """Places of the members of whom a run borrowed tokens and held what is not finite."""
        found: set[int] = set()
        for (stage, _), lanes in self.lanes.items():
            if stage in self.unsound:
                found.update(np.flatnonzero(self.unsound[stage].numpy()[lanes]).tolist())
        return found

    def _carry_out(self, i: int, stage: int, point: Touchpoint | None) -> None:
        node = self.program.graph.nodes[i]
        if node.run in self.over:
            value: Any = ABSENT
        elif node.op != JOINED and any(self._values.get(j) is ABSENT for j in inputs(node)):
            value = ABSENT
            if node.op in ("write", "save", "print"):
                reason = ValueError("it takes a step that was not taken: the run has stopped before")
                self._end(i, dict.fromkeys(range(len(self.members)), reason))
        else:
            value = self._compute(i, node, stage, point)
        if self.around.refuse_nan and self.members:
            value = self._without_nan(i, value)
        for j in inputs(node):
            self._left[j] -= 1
            if not self._left[j]:
                self._values.pop(j, None)
        if self._left[i] and self.members:
            self._values[i] = value

    def _compute(self, i: int, node: Node, stage: int, point: Touchpoint | None) -> Any:
        args = tuple(self._value(arg) for arg in node.args) if node.op != TAKE else ()
        match node.op:
            case "read" | "take" | "write":
                assert point is not None
                return self._at_site(i, node, self.lanes[stage, node.run or 0], args, point)
            case "target":
                assert point is not None
                return (*self._values.get(i, ()), ((stage, node.run or 0), point.note()))
            case "backward":
                return self._gradients
            case "grad":
                return self._gradient(i, *args)
            case "weight":
                return self.around.weight(str(node.site))
            case "call":
                return self._called(i, str(node.site), args)
            case "save":
                self._saves[str(node.name)] = self._attempt(
                    i, lambda: saved(args[0]), lambda place: saved(of_task(args[0], place))
                )
            case "print":
                self._prints.append(
                    (str(node.name), self._attempt(i, None, lambda place: shown(of_task(args[0], place))))
                )
            case "stop":
                pass
            case "choose":
                assert point is not None
                return self._choose(i, node, self.lanes[stage, node.run or 0], point)
            case "joined":
                return self._attempt(
                    i,
                    lambda: joined_steps(args[0], taken(args[1:])),
                    lambda place: joined_steps(args[0], of_task(taken(args[1:]), place)),
                )
            case _:
                return self._operation(i, node, args)
        return None

    def _at_site(self, i: int, node: Node, lanes: Numbers, args: tuple[Any, ...], point: Touchpoint) -> Any:
        index = tuple(self._value(part) for part in node.index or ())
        if node.op == "write":
            return self._attempt(
                i,
                lambda: point.put(lanes, index, args[0]),
                lambda place: point.put_one(int(lanes[place]), of_task(index, place), of_task(args[0], place)),
            )
        return self._attempt(
            i,
            lambda: point.take(lanes, index),
            lambda place: point.take_one(int(lanes[place]), of_task(index, place)),
        )

    def _choose(self, i: int, node: Node, lanes: Numbers, point: Touchpoint) -> Any:
        """The next token of each member; what is drawn is drawn for each with its own random numbers."""
        given = {name: self._value(arg) for name, arg in node.kwargs}
        step, stop = given.pop("step"), given.pop("stop", None)
        greedy = all(value is None for value in given.values())
        logits = point.take(lanes, (0, -1))
        logits = logits if greedy else on_device(logits, torch.device("cpu"))
        origin = self.program.origin[i]
        value = self._attempt(
            i,
            (lambda: likeliest_of_each(logits)) if greedy else None,
            lambda place: drawn_alone(logits, given, place, self.members[place], origin, step),
        )
        if self.members:
            self._steps.choose(i, value, stop, len(self.members))
        return on_device(value, self.around.device)

    def beginnings(self, run: int) -> Sequence[Beginning]:
        """What a run of each member begins with."""
        return self._steps.beginnings(run) or [member.prompts[run] for member in self.members]

    def passed(self, pasts: Sequence[Past | None]) -> Iterator[Cohort]:
        """After a pass whose lanes have ``pasts``: remembers what members have seen that go on.

        Gives the members that have stopped, as cohorts of their own.
        """
        for run in self.program.choosing(self.stage):
            if run not in self.over:
                yield from self._gone_on(run, pasts)

    def _gone_on(self, run: int, pasts: Sequence[Past | None]) -> Iterator[Cohort]:
        stopped = self._steps.stopped(run)
        if stopped is None:
            return
        if len(stopped) == len(self.members):
            self._steps.end(run)
            return
        if stopped:
            other = self._apart(stopped)
            other._steps.end(run)
            yield other
        seen = [pasts[lane] for lane in self.lanes[self.stage, run].tolist()]
        self._steps.go_on(run, [past for past in seen if past is not None])

    def assume(self, pasts: Sequence[Past | None]) -> None:
        """After a pass that was only planned: every run goes on, and with the same token."""
        for run in self.program.choosing(self.stage):
            self._steps.assume(self.program.choices[run], len(self.members))
        for _ in self.passed(pasts):
            raise AssertionError("nobody stops")

    @property
    def over(self) -> frozenset[int]:
        """The runs of steps that are not taken, since all members have stopped before."""
        return self._steps.over

    def leave_pass(self) -> None:
        """Goes on to the next stage; what is left of this one is carried out, or of all if there is no further pass."""
        self.stage += 1
        if self.over:
            self._finish(self.stage - 1 if self.goes_on else self.program.stages)

    def _finish(self, stage: int) -> None:
        entries = self.program.entries
        while self.members and self._next < len(entries) and entries[self._next].stage <= stage:
            entry = entries[self._next]
            self.advance(entry.stage, entry.order)

    def _gradient(self, i: int, noted: tuple[tuple[tuple[int, int], Noted], ...], found: Mapping[int, Any]) -> Any:
        """By a site that a run met in several passes it is the sum over them."""
        parts = [(self.lanes[where], one.gradient(found)) for where, one in noted]

        def alone(place: int) -> Any:
            own = [access.take_one(int(lanes[place]), ()) for lanes, access in parts]
            return own[0] if len(own) == 1 else total(own)

        return self._attempt(i, (lambda: parts[0][1].take(parts[0][0], ())) if len(parts) == 1 else None, alone)

    def _operation(self, i: int, node: Node, args: tuple[Any, ...]) -> Any:
        kwargs = {name: self._value(arg) for name, arg in node.kwargs}
        if self.around.spread:
            args = on_one_device(args)
        device = self.around.device

        def alone(place: int) -> Any:
            own = {name: of_task(value, place) for name, value in kwargs.items()}
            if OPERATIONS[node.op].random:
                own["generator"] = generator_of(self.members[place].seed, self.program.origin[i])
            return KERNELS[node.op](*of_task(args, place), device=device, **own)

        def together() -> Any:
            if varies((args, *kwargs.values())):
                return vectorised.apply(node.op, args, kwargs, device)
            return KERNELS[node.op](*args, device=device, **kwargs)

        return self._attempt(i, None if OPERATIONS[node.op].random else together, alone)

    def _called(self, i: int, site: str, args: tuple[Any, ...]) -> Any:
        def call(*own: Any) -> Any:
            return self.around.call(site, own)

        return self._attempt(
            i,
            lambda: vectorised.mapped_over(call, args) if varies(args) else call(*args),
            lambda place: call(*of_task(args, place)),
        )

    def _attempt(self, i: int, together: Callable[[], Any] | None, alone: Callable[[int], Any]) -> Any:
        """Node ``i`` for all tasks at once if that is possible, else task by task; those that fail leave the cohort."""
        if together is not None:
            try:
                return together()
            except torch.OutOfMemoryError:
                raise
            except Exception:  # noqa: BLE001  task by task shows whose error it is
                pass
        found: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for place in range(len(self.members)):
            try:
                found[place] = alone(place)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001  whatever a user's node raises is that task's error alone
                errors[place] = error
        self._end(i, errors)
        return joined(list(found.values())) if found else None

    def _without_nan(self, i: int, value: Any) -> Any:
        places = has_nan(value, len(self.members))
        self._end(i, {place: ValueError("its value holds NaN") for place in places})
        return of_tasks(value, sorted(set(range(len(self.members) + len(places))) - set(places))) if places else value

    def _end(self, i: int, errors: Mapping[int, Exception]) -> None:
        """The members in these places have failed at node ``i``: from now on they are not there."""
        if not errors:
            return
        for place, error in errors.items():
            self.errors[self.members[place].index] = task_error(
                self.program.origin[i], self.program.graph.nodes[i], error
            )
        self._keep([place for place in range(len(self.members)) if place not in errors])

    def _keep(self, places: Sequence[int]) -> None:
        """Those that are not in these places are not there any more."""
        self.members = [self.members[place] for place in places]
        self.lanes = {key: lanes[places] for key, lanes in self.lanes.items()}
        self._steps = self._steps.of(places)
        self._values = {key: of_tasks(value, places) for key, value in self._values.items()}
        self._saves = {name: of_tasks(value, places) for name, value in self._saves.items()}
        self._columns = {name: of_tasks(value, places) for name, value in self._columns.items()}
        self._prints = [(name, of_tasks(value, places)) for name, value in self._prints]

    def _apart(self, places: Sequence[int]) -> Cohort:
        """The members in these places as a cohort of their own, as far as this one has come."""
        other = copy(self)
        other.errors, other._left = {}, list(self._left)
        self._parted = other._parted = True
        other._keep(places)
        self._keep([place for place in range(len(self.members)) if place not in set(places)])
        return other

    def _value(self, arg: Arg) -> Any:
        match arg:
            case NodeRef(node):
                return self._values[node]
            case ParamRef(name):
                return self._bound(self._columns[name])
            case TensorRef(digest):
                return self.around.constant(digest)
            case SliceArg(start, stop, step):
                return slice(self._value(start), self._value(stop), self._value(step))
            case tuple():
                return tuple(self._value(item) for item in arg)
        return arg

    def _bound(self, value: Any) -> Any:
        if isinstance(value, TensorRef):
            return self.around.constant(value.digest)
        if isinstance(value, Rows) and isinstance(value.values[0], TensorRef):
            return joined([self.around.constant(one.digest) for one in value.values])
        return value


def land(cohorts: Sequence[Cohort]) -> None:
    """Brings what cohorts save into main memory."""
    arrived = iter(landed([value for cohort in cohorts for value in cohort._saves.values()]))
    for cohort in cohorts:
        cohort._saves = {name: next(arrived) for name in cohort._saves}
