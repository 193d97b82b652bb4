"""Tasks of one program go through a pass together: each node is carried out once, for all of them.

What cannot be done for all at once is done task by task; what goes wrong in one task ends that task and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from ndif_batch.engine import vectorised
from ndif_batch.engine.access import Noted
from ndif_batch.engine.cache import Past
from ndif_batch.engine.choosing import drawn, generator_of, likeliest
from ndif_batch.engine.kernels import KERNELS
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.program import Program
from ndif_batch.engine.saves import landed, saved, shown
from ndif_batch.engine.schedule import JOINED, before
from ndif_batch.engine.takes import TAKE
from ndif_batch.engine.targets import BACKWARD, GRAD
from ndif_batch.engine.tasks import Member, Surroundings, Touchpoint
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
    mapped,
    of_each,
    of_task,
    of_tasks,
    on_one_device,
    total,
    varies,
)
from ndif_batch.errors import NdifBatchError, TaskError
from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, SliceArg, TensorRef, inputs
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.steps import Choice

Beginning: TypeAlias = "tuple[int, ...] | Next"
"""What a run begins with: the tokens of a prompt, or one token after what was seen before."""


@dataclass(frozen=True, slots=True)
class Next:
    """A token that was chosen after a past."""

    past: Past
    token: int


def tokens_of(beginning: Beginning) -> tuple[int, ...]:
    """The tokens that a run begins with."""
    return (beginning.token,) if isinstance(beginning, Next) else beginning


class _Absent:
    """Stands for the value of a step that was never taken."""


ABSENT: Final = _Absent()
IN_STEP: Final = ("write", BACKWARD)


@dataclass
class Cohort:
    """Tasks on their way; ``members`` are those that are still well.

    ``lanes`` has, for each stage and run, the lane of each member. ``errors`` are by the index of a task. ``unsound``
    has, for each stage in which lanes borrow, a number of each lane: 0 if it held nothing but finite values.
    ``pasts`` has for each run that goes on what each member has seen, ``chosen`` by node the token of each, and
    ``over`` are the runs of steps that are not taken, since all members have stopped before.
    """

    program: Program
    members: list[Member]
    around: Surroundings
    lanes: dict[tuple[int, int], Numbers] = field(default_factory=dict)
    errors: dict[int, TaskError] = field(default_factory=dict)
    unsound: dict[int, torch.Tensor] = field(default_factory=dict)
    pasts: dict[int, list[Past]] = field(default_factory=dict)
    chosen: dict[int, list[int]] = field(default_factory=dict)
    over: frozenset[int] = frozenset()
    _parted: bool = False
    _saves: dict[str, Any] = field(default_factory=dict)
    _prints: list[tuple[str, Any]] = field(default_factory=list)
    _values: dict[int, Any] = field(default_factory=dict)
    _gradients: Mapping[int, torch.Tensor] = field(default_factory=dict)
    _next: int = 0
    _halted: int = -1

    def __post_init__(self) -> None:
        self._left = list(self.program.uses)
        self._stops: dict[int, list[frozenset[int]]] = {}
        names = self.program.params
        self._columns = {name: column([member.bindings[name] for member in self.members]) for name in names}

    def due(self, stage: int) -> set[int]:
        """Where in pass ``stage`` there is something to do."""
        return {entry.order for entry in self.program.entries if entry.stage == stage and entry.order >= 0}

    def lanes_at(self, stage: int, order: int) -> Iterator[Numbers]:
        """The lanes of its runs that are touched there."""
        for entry in self.program.entries:
            if (entry.stage, entry.order) == (stage, order):
                run = self.program.graph.nodes[entry.node].run
                if run is not None and (stage, run) in self.lanes:
                    yield self.lanes[stage, run]

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
                    lambda: joined_steps(args[0], _taken(args[1:])),
                    lambda place: joined_steps(args[0], of_task(_taken(args[1:]), place)),
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
        logits = point.take(lanes, (0, -1))
        given = {name: self._value(arg) for name, arg in node.kwargs}
        step = given.pop("step")
        stop = given.pop("stop", None)
        greedy = all(value is None for value in given.values())

        def alone(place: int) -> torch.Tensor:
            choice = Choice(**{name: of_task(value, place) for name, value in given.items()})
            choice.check()
            numbers = generator_of(self.members[place].seed, self.program.origin[i], step)
            return drawn(of_task(logits, place), choice, numbers)

        def likeliest_of_all() -> Any:
            return Each(likeliest(logits.stacked)) if isinstance(logits, Each) else likeliest(logits)

        value = self._attempt(i, likeliest_of_all if greedy else None, alone)
        if not self.members:
            return value
        self.chosen[i] = [int(token) for token in _tokens(value, len(self.members))]
        self._stops[i] = [_ids(of_task(stop, place)) for place in range(len(self.members))]
        return mapped(value, lambda one: _on(one, self.around.device))

    def beginning(self, run: int, place: int) -> Beginning:
        """What a run of a member begins with."""
        choice = before(self.program.graph, run)
        if choice is None:
            return self.members[place].prompts[run]
        parent = self.program.graph.nodes[choice].run
        assert parent is not None
        return Next(self.pasts[parent][place], self.chosen[choice][place])

    def stepped(self, stage: int, pasts: Sequence[Past | None]) -> Iterator[Cohort]:
        """After a pass whose lanes have ``pasts``: remembers what members have seen that go on.

        Gives the members that have stopped, as cohorts of their own.
        """
        for run, choice in self.program.choices.items():
            if choice in self.chosen and (stage, run) in self.lanes and run not in self.over:
                yield from self._gone_on(stage, run, choice, pasts)

    def _gone_on(self, stage: int, run: int, choice: int, pasts: Sequence[Past | None]) -> Iterator[Cohort]:
        following = self.program.following.get(choice)
        tokens, stops = self.chosen[choice], self._stops.pop(choice, None)
        if following is None or stops is None:
            return
        stopped = [place for place, token in enumerate(tokens) if token in stops[place]]
        if stopped and len(stopped) < len(self.members):
            other = self._apart(stopped)
            other.over |= self._steps_from(following)
            yield other
        elif stopped:
            self.over |= self._steps_from(following)
            return
        seen = [pasts[lane] for lane in self.lanes[stage, run].tolist()]
        self.pasts[run] = [past for past in seen if past is not None]
        earlier = before(self.program.graph, run)
        if earlier is not None:
            self.pasts.pop(self.program.graph.nodes[earlier].run or 0, None)

    def assume(self, stage: int, pasts: Sequence[Past | None]) -> None:
        """After a pass that was only planned: every run goes on, and with the same token."""
        for run, choice in self.program.choices.items():
            if (stage, run) in self.lanes and self.program.following.get(choice) is not None:
                self.chosen[choice] = [0] * len(self.members)
                self._stops[choice] = [frozenset()] * len(self.members)
        for _ in self.stepped(stage, pasts):
            raise AssertionError("nobody stops")

    def _steps_from(self, run: int | None) -> frozenset[int]:
        """A run of a step and those of all that would follow."""
        found = []
        while run is not None:
            found.append(run)
            choice = self.program.choices.get(run)
            run = None if choice is None else self.program.following.get(choice)
        return frozenset(found)

    def finish(self, stage: int) -> None:
        """Carries out what is left of a stage when its pass is over, or there was none."""
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
            self.errors[self.members[place].index] = _task_error(
                self.program.origin[i], self.program.graph.nodes[i], error
            )
        self._keep([place for place in range(len(self.members)) if place not in errors])

    def _keep(self, places: Sequence[int]) -> None:
        """Those that are not in these places are not there any more."""
        self.members = [self.members[place] for place in places]
        self.lanes = {key: lanes[places] for key, lanes in self.lanes.items()}
        self.pasts = {run: [pasts[place] for place in places] for run, pasts in self.pasts.items()}
        self.chosen = {i: [tokens[place] for place in places] for i, tokens in self.chosen.items()}
        self._stops = {i: [stops[place] for place in places] for i, stops in self._stops.items()}
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


def _taken(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([part for part in parts if part is not ABSENT])


def _tokens(value: Any, tasks: int) -> list[int]:
    if isinstance(value, torch.Tensor):
        return value.tolist() * tasks
    return [token for (token,) in value.stacked.tolist()]


def _ids(stop: Any) -> frozenset[int]:
    return frozenset() if stop is None else frozenset(stop if isinstance(stop, tuple) else (stop,))


def _on(one: Any, device: torch.device) -> Any:
    if isinstance(one, Each):
        return Each(one.stacked.to(device))
    return one.to(device) if isinstance(one, torch.Tensor) else one


def _task_error(node: int, what: Node, error: Exception) -> TaskError:
    reason = (
        error.message if isinstance(error, NdifBatchError) else (str(error).splitlines() or [type(error).__name__])[0]
    )
    return TaskError(f"node {node} ({'getitem' if what.op == TAKE else what.op}): {reason}", node=node)
