"""Writes an experiment down: each thing that the user does becomes a node, in the order of doing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ndif_batch.errors import TraceError
from ndif_batch.graph.abstract import Abstract
from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, ParamType, Run, Step
from ndif_batch.graph.operations import OPERATIONS, Operation
from ndif_batch.graph.syntax import RUN_NAME, SAVE_NAME
from ndif_batch.trace import functions
from ndif_batch.trace.arguments import Arguments
from ndif_batch.trace.parameters import Param, Parameters
from ndif_batch.trace.place import refusal, user_place
from ndif_batch.trace.proxy import Fields, Proxy
from ndif_batch.trace.storage import SiteStorage, Storage, may_be_same
from ndif_batch.trace.tree import Tree

WEIGHT = "it is a weight of the model"


class Recorder:
    """One experiment as far as it is recorded. ``places`` has the user's line of every node.

    That of a session (``is_session``) takes in the traces that are opened inside; ``broken`` if one ended by an error.

    ``look`` gives the abstract value of a node while a scan is recorded, else it is ``None``.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.nodes: list[Node] = []
        self.places: list[str] = []
        self.runs: list[Run] = []
        self.parameters = Parameters()
        self.constants: dict[str, Any] = {}
        self.arguments = Arguments(self)
        self.look: Callable[[int], Abstract] | None = None
        self.is_session = self.broken = False
        self._run: int | None = None
        self.step: Step | None = None
        self._counts: dict[int, int] = {}
        self._sites: dict[tuple[int, str, Step | None], SiteStorage] = {}
        self._backward: int | None = None
        self._gradients: dict[tuple[int, int], int] = {}

    def add(self, node: Node) -> int:
        """Appends a node and gives its id."""
        self.nodes.append(node)
        self.places.append(user_place())
        return len(self.nodes) - 1

    def open_run(self, prompt: Any, name: str | None) -> None:
        """Begins a run; sites belong to it until :meth:`close_run`."""
        if self._run is not None:
            raise refusal("an invoke inside an invoke cannot be recorded", hint="close the first one before")
        self.runs.append(Run(self._run_name(prompt, name), self._prompt(prompt)))
        self._run = len(self.runs) - 1

    def generate(self, count: int, options: Mapping[str, Any]) -> None:
        """Has the open run generate ``count`` tokens."""
        row = OPERATIONS["steps"]
        given = {name: self.arguments.convert(value) for name, value in options.items()}
        try:
            bound = row.bind((count,), given)
        except ValueError as error:
            raise refusal(f"generate: {error}") from None
        self.add(Node("steps", (count,), tuple(sorted(given.items())), run=self.run))
        self.arguments.note(row, bound)
        self._counts[self.run] = count

    def tokens(self) -> Proxy:
        """The tokens that the open run generates."""
        return Proxy(Storage(self, self.add(Node("tokens", run=self.run)), locked="it is what the run has generated"))

    @property
    def count_of_steps(self) -> int:
        """How many steps the open run takes."""
        if self.run not in self._counts:
            raise refusal("this run generates nothing, so it has no steps", hint="with lm.generate(prompt, …) as t:")
        return self._counts[self.run]

    @property
    def has_open_run(self) -> bool:
        """Whether sites belong to a run now."""
        return self._run is not None

    def close_run(self) -> None:
        """Ends the open run; its values stay usable."""
        self._run = None

    @property
    def is_in_run(self) -> bool:
        """Whether a run is open."""
        return self._run is not None

    @property
    def run(self) -> int:
        """The open run."""
        if self._run is None:
            raise refusal("no invoke is open, so it is not known which run this is", hint="with t.invoke(prompt): …")
        return self._run

    def view(self, site: str) -> Proxy:
        """Reads a site of the open run."""
        self.tree.check_site(site)
        own = SiteStorage(self, self.run, site, self.step)
        storage = self._sites.setdefault((self.run, site, self.step), own)
        storage.read()
        return Proxy(storage)

    def replace(self, site: str, value: Any) -> None:
        """``module.output = value``. What was read of the site before keeps its old value."""
        self.tree.check_site(site)
        own = self._sites.get((self.run, site, self.step))
        if own is not None and isinstance(value, Proxy) and value.sees(own, ()):
            return
        alike = list(self._alike(self.run, site))
        for storage in alike:
            storage.read()
        self.add(Node("write", (self.arguments.value(value),), run=self.run, site=site, step=self.step))
        for storage in alike:
            storage.locked = f"it was read before the site was replaced at {user_place()}"
            del self._sites[storage.run, storage.site, storage.step]

    def written(self, run: int, site: str) -> None:
        """Makes every view of the site read it again."""
        for storage in self._alike(run, site):
            storage.stale()

    def weight(self, path: str) -> Proxy:
        """Reads a parameter of the model."""
        return Proxy(Storage(self, self.add(Node("weight", site=path)), locked=WEIGHT))

    def call(self, path: str, values: Sequence[Any]) -> Proxy:
        """Applies a module to a value."""
        if len(values) != 1:
            raise refusal(f"{path} takes one value, got {len(values)}", hint="only modules of one value can be called")
        return Proxy(Storage(self, self.add(Node("call", (self.arguments.value(values[0]),), site=path))))

    def skip(self, path: str, value: Any) -> None:
        """Leaves a module out of the open run."""
        self.add(Node("skip", (self.arguments.value(value),), run=self.run, site=path, step=self.step))
        self.written(self.run, f"{path}.output")

    def backward(self, scalar: int) -> None:
        """Differentiates a scalar."""
        self._backward = self.add(Node("backward", (NodeRef(scalar),)))

    def gradient(self, read: int) -> int:
        """The node of the latest scalar's gradient by a read."""
        if self._backward is None:
            raise refusal("there is no gradient before .backward()", hint="call .backward() on a scalar first")
        known = self._gradients.get((read, self._backward))
        if known is None:
            known = self.add(Node("grad", (NodeRef(read), NodeRef(self._backward))))
            self._gradients[read, self._backward] = known
        return known

    def stop(self) -> None:
        """Ends the open run's pass here."""
        self.add(Node("stop", run=self.run))

    def log(self, name: str, value: Any) -> None:
        """Puts a value into the task's log."""
        _check_name(name)
        self.add(Node("print", (self.arguments.value(value),), name=name))

    def save(self, node: int, name: str | None, dims: Sequence[str] | None) -> None:
        """Names a value as an array of the job."""
        if name is None:
            raise refusal("a saved value needs a name", hint='the job\'s array is called so: .save("logits")')
        _check_name(name)
        if any(known.op == "save" and known.name == name for known in self.nodes):
            raise refusal(f"two values are saved as {name!r}", hint="give each its own name")
        named = None if dims is None else (dims,) if isinstance(dims, str) else tuple(dims)
        self.add(Node("save", (NodeRef(node),), name=name, dims=named))

    def apply(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Proxy:
        """Records the operation that torch calls ``name``."""
        row = functions.operation(name)
        convert = self.arguments.index if row.name == "getitem" else self.arguments.convert
        first = [self.arguments.convert(value) for value in args[:1]]
        given = functions.canonical_kwargs(row, kwargs)
        try:
            bound = row.bind(
                [*first, *(convert(value) for value in args[1:])],
                {key: self.arguments.convert(value) for key, value in given.items()},
            )
        except ValueError as error:
            raise refusal(f"{name}: {error}", hint=f"{row}") from None
        node = self.add(Node(row.name, *_written_out(row, bound)))
        self.arguments.note(row, bound)
        return self._result(row, bound, node)

    def apply_torch(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Records a call of one of torch's own functions."""
        name = getattr(func, "__name__", str(func))
        changes = name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))
        if name == "clone" and isinstance(args[0], Proxy):
            return args[0].clone()
        if not changes:
            return self.apply(name.strip("_"), args, functions.without_defaults(func, kwargs))
        if not isinstance(args[0], Proxy):
            raise refusal("a tensor of your own cannot be changed by a recorded value", hint="compute a new value")
        return getattr(args[0], name)(*args[1:], **functions.without_defaults(func, kwargs))

    def _result(self, row: Operation, bound: Mapping[str, Any], node: int) -> Proxy:
        names = functions.RESULTS.get(row.name)
        if names is not None and bound["dim"] is not None:
            return Fields(Storage(self, node), names)
        shared = f"a `{row.name}` is another value to the graph, and its change would not reach the first"
        return Proxy(Storage(self, node, locked=shared if row.name in functions.VIEWS else None))

    def _alike(self, run: int, site: str) -> Iterator[SiteStorage]:
        return (s for s in self._sites.values() if s.run == run and may_be_same(s.site, site))

    def _run_name(self, prompt: Any, name: str | None) -> str:
        taken = {run.name for run in self.runs}
        if name is not None:
            if name in taken:
                raise refusal(f"two invokes are called {name!r}", hint="give each its own name=")
            if not re.fullmatch(RUN_NAME, name):
                raise refusal(f"{name!r} is no name for an invoke", hint="use letters, digits, `_`, `.` and `-`")
            return name
        own = prompt.param_name if isinstance(prompt, Param) else f"run{len(self.runs)}"
        return own if own not in taken else f"{own}.{len(self.runs)}"

    def _prompt(self, prompt: Any) -> ParamRef | str | tuple[int, ...]:
        if isinstance(prompt, Param):
            ref = self.parameters.meet(prompt)
            self.parameters.use(ref.param, ParamType.PROMPT)
            return ref
        if isinstance(prompt, str):
            return prompt
        try:
            ids = tuple(int(token) for token in prompt)
        except (TypeError, ValueError, TraceError):
            raise refusal(f"{prompt!r} is no prompt", hint="give text, a list of token ids, or param(...)") from None
        if not ids:
            raise refusal("the prompt has no tokens", hint="a prompt needs at least one token")
        return ids


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(SAVE_NAME, name):
        raise refusal(f"{name!r} is no name for a value", hint="use letters, digits, `_`, `.` and `-`")


def _written_out(row: Operation, bound: Mapping[str, Any]) -> tuple[tuple[Arg, ...], tuple[tuple[str, Arg], ...]]:
    """Arguments that are not their defaults: by position up to the first gap, then by keyword in alphabetical order."""
    args: list[Arg] = []
    kwargs: dict[str, Arg] = {}
    for parameter in row.parameters:
        value, default = bound[parameter.name], parameter.default
        if type(value) is type(default) and value == default:
            continue
        if parameter.keyword or kwargs or len(args) < row.parameters.index(parameter):
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return tuple(args), tuple(sorted(kwargs.items()))
