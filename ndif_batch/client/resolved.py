"""A job's parameter space checked against its graph, with text as token ids and each distinct text read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from ndif_batch.errors import ModelError, SweepError, nearest
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import Graph, Inputs, ParamRef, ParamType, Prompt, TensorRef, Value
from ndif_batch.graph.steps import generations
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.inputs import check_inputs
from ndif_batch.models.tokenizer import check_prompt, resolve
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import SEED_AXIS

ACCEPTS: Mapping[ParamType, tuple[type, ...]] = {
    ParamType.PROMPT: (str, tuple, Inputs),
    ParamType.INT: (int, str),
    ParamType.FLOAT: (float, int),
    ParamType.BOOL: (bool,),
    ParamType.STR: (str,),
    ParamType.TENSOR: (TensorRef,),
}
TEXT = (ParamType.PROMPT, ParamType.INT)


@dataclass(frozen=True, slots=True)
class Prompts:
    """How many different prompts the tasks of a job run, and how many tokens: of all tasks, and of one on average.

    A prompt of tensors counts as the tokens of a language model that cost as much.
    """

    distinct: int
    tokens: int
    tokens_per_task: int


def check_parameters(graph: Graph, space: Space) -> None:
    """``SweepError`` unless the space binds exactly the graph's parameters, each to values of its type."""
    for name in space.params:
        if name not in graph.params and name != SEED_AXIS:
            raise SweepError(f"the graph has no parameter {name!r}", hint=nearest(name, graph.params))
    for name in graph.params:
        if name not in space.params:
            raise SweepError(f"parameter {name!r} of the graph has no value", hint="make it an axis or a constant")
    for name, values in _columns(space):
        if name not in graph.params:
            continue
        for value in values[:1] if isinstance(values, range) else values:
            _check_type(name, graph.params[name], value)


def resolve_space(graph: Graph, space: Space, model: ModelInfo) -> Space:
    """``space`` with prompts as checked token ids and strings of ``int`` parameters as the ids of their one token.

    Raises ``ModelError`` that names the parameter.
    """
    runs = {run.prompt.param: run.name for run in graph.runs if isinstance(run.prompt, ParamRef)}
    known: dict[tuple[str, Value], Value] = {}

    def resolved(name: str, value: Value) -> Value:
        try:
            found = resolve(graph.params, {name: value}, model.tokenizer, model.sites)[name]
        except ModelError as error:
            named = f"parameter {name!r}"
            told = error.message if error.message.startswith(named) else f"{named}: {error.message}"
            raise ModelError(told, hint=error.hint) from None
        if isinstance(found, tuple):
            check_prompt(runs.get(name, name), found, model.sites)
        return found

    def column(name: str, values: Sequence[Value]) -> Sequence[Value]:
        if graph.params.get(name) not in TEXT or isinstance(values, range):
            return values
        for value in dict.fromkeys(values):
            known[name, value] = resolved(name, value)
        return [known[name, value] for value in values]

    axes = tuple(Axis(axis.name, {n: column(n, values) for n, values in axis.columns.items()}) for axis in space.axes)
    constants = {name: column(name, (value,))[0] for name, value in space.constants.items()}
    return Space(axes, constants, space.rules)


def check_prompts(graph: Graph, space: Space, model: ModelInfo, constants: Mapping[str, AbstractTensor]) -> None:
    """``ModelError`` unless each prompt of tensors has those that the model takes."""
    for run in graph.runs:
        if isinstance(run.prompt, Inputs):
            check_inputs(f"the prompt of run {run.name!r}", run.prompt, model.sites, constants)
    for name, values in _columns(space):
        if graph.params.get(name) is ParamType.PROMPT:
            for value in dict.fromkeys(values):
                if isinstance(value, Inputs):
                    check_inputs(f"parameter {name!r}", value, model.sites, constants)


def count_prompts(graph: Graph, space: Space, model: ModelInfo) -> Prompts:
    """The prompts of all tasks of a resolved ``space`` that run; one that no axis varies is the same in each.

    Tokens are those that go through the model: those of a generation count among them.
    """
    uses, running = _uses(space)
    distinct: set[Prompt] = set()
    tokens = 0
    steps = generations(graph)
    for number, run in enumerate(graph.runs):
        further = steps[number].count - 1 if number in steps else 0
        name = run.prompt.param if isinstance(run.prompt, ParamRef) else None
        values = (run.prompt,) if name is None else dict(_columns(space))[name]
        for ids, tasks in zip(_ids(values, model), uses.get(name, (running,)), strict=True):
            if tasks:
                distinct.add(ids)
                tokens += (len(ids) * model.sites.input_tokens + further) * tasks
    return Prompts(len(distinct), tokens, max(1, ceil(tokens / running)))


def _uses(space: Space) -> tuple[dict[str | None, Sequence[int]], int]:
    """How many running tasks have each value of each varying parameter, and how many run."""
    skipped = space.excluded()
    if skipped is None:
        counts = [[space.size // length] * length for length in space.shape]
        running = space.size
    else:
        grid = ~skipped.reshape(space.shape)
        numbers = range(grid.ndim)
        counts = [grid.sum(axis=tuple(k for k in numbers if k != number)).tolist() for number in numbers]
        running = int(grid.sum())
    along = zip(space.axes, counts, strict=True)
    return {name: tasks for axis, tasks in along for name in axis.columns}, running


def _ids(prompts: Sequence[Any], model: ModelInfo) -> list[Prompt]:
    """Token ids, or tensors, of each prompt; none of one that cannot be."""
    tokenizer = model.tokenizer
    encoded = [tokenizer.encode(p) if isinstance(p, str) and tokenizer is not None else p for p in prompts]
    return [ids if isinstance(ids, tuple | Inputs) else () for ids in encoded]


def _columns(space: Space) -> Iterator[tuple[str, Sequence[Value]]]:
    for axis in space.axes:
        yield from axis.columns.items()
    for name, value in space.constants.items():
        yield name, (value,)


def _check_type(name: str, kind: ParamType, value: Value) -> None:
    wrong_bool = isinstance(value, bool) and kind is not ParamType.BOOL
    if wrong_bool or not isinstance(value, ACCEPTS[kind]):
        raise SweepError(f"parameter {name!r} is of type {kind.value} and cannot be {value!r}")
