"""Steps of a generation: step 0 sees the prompt, each later one the token that the step before it has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ndif_batch.graph.nodes import Arg, Graph, Node, ParamRef, SliceArg, Step, Value, inputs


@dataclass(frozen=True, slots=True)
class Choice:
    """How a token is chosen from logits: the largest, or drawn as transformers' ``generate`` draws.

    ``stop`` are the tokens after which a run takes no further step.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[int, ...] = ()

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature is None and self.top_k is None and self.top_p is None

    def check(self) -> None:
        """``ValueError`` for a number that means nothing."""
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"a temperature is more than 0, not {self.temperature}; without one the likeliest is taken"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is more than 0 and at most 1, not {self.top_p}")


@dataclass(frozen=True, slots=True)
class Generation:
    """What the ``steps`` node at ``node`` says of its run: at most ``count`` steps, fewer if it may ``stop``."""

    node: int
    count: int
    stop: bool


def generations(graph: Graph) -> dict[int, Generation]:
    """The runs that generate."""
    found = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "steps" and node.run is not None:
            given = _given(node)
            found[node.run] = Generation(i, given["n"], given["stop"] not in (None, ()))
    return found


def choice_of(node: Node, bindings: Mapping[str, Value]) -> Choice:
    """How a ``steps`` node chooses; a parameter that is not among ``bindings`` counts as not given."""

    def value(arg: Arg) -> Any:
        return bindings.get(arg.param) if isinstance(arg, ParamRef) else arg

    given = _given(node)
    stop = given["stop"]
    stops = () if stop is None else stop if isinstance(stop, tuple) else (stop,)
    temperature, top_k, top_p = (value(given[name]) for name in ("temperature", "top_k", "top_p"))
    return Choice(temperature, top_k, top_p, tuple([token for one in stops if (token := value(one)) is not None]))


def steps_of(step: Step | None, count: int) -> range:
    """The steps that are meant, of so many; ``ValueError`` for one that does not exist."""
    if step is None:
        return range(1)
    if isinstance(step, SliceArg):
        bounds: list[Any] = [step.start, step.stop, step.step]
        if any(bound is not None and type(bound) is not int for bound in bounds):
            raise ValueError("the bounds of a slice of steps are written in the graph")
        if step.step is not None and bounds[2] < 1:
            raise ValueError("steps go forwards: the step of a slice of them is at least 1")
        return range(count)[slice(*bounds)]
    if not -count <= step < count:
        raise ValueError(f"step {step} is none of the {count} steps")
    return range(step % count, step % count + 1)


def counts_from_the_end(step: Step) -> bool:
    """Whether it depends on the last step which ones are meant."""
    parts = (step.start, step.stop) if isinstance(step, SliceArg) else (step,)
    return any(type(part) is int and part < 0 for part in parts)


def step_by_step(graph: Graph, write: int) -> set[int]:
    """What a write at a slice of steps takes anew at each of them.

    That is every read of its own run at the same steps, which gives that step's view there, and what is made of it.
    """
    own = graph.nodes[write]
    found: set[int] = set()
    for i in range(write):
        node = graph.nodes[i]
        if node.op == "read":
            if (node.run, node.step) == (own.run, own.step):
                found.add(i)
        elif node.op not in ("write", "skip") and any(j in found for j in inputs(node)):
            found.add(i)
    return found & _behind(graph, write)


def _behind(graph: Graph, i: int) -> set[int]:
    """The nodes that a node's arguments are made of."""
    found: set[int] = set()
    waiting = list(inputs(graph.nodes[i]))
    while waiting:
        j = waiting.pop()
        if j not in found:
            found.add(j)
            waiting += inputs(graph.nodes[j])
    return found


def _given(node: Node) -> dict[str, Any]:
    given: dict[str, Any] = dict.fromkeys(("temperature", "top_k", "top_p", "stop"))
    return given | dict(zip(("n",), node.args, strict=False)) | dict(node.kwargs)
