"""What a user binds to parameters, checked against the graph and put into its form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ndif_batch.errors import TraceError, nearest
from ndif_batch.graph.nodes import Graph, ParamType, TensorRef, Value
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import constants
from ndif_batch.trace.place import refusal
from ndif_batch.trace.prompts import inputs_of

SEED = "seed"


class Bindings:
    """Converts bound values; tensors among them are put beside ``tensors``, the experiment's own."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Any], info: ModelInfo) -> None:
        self._graph = graph
        self._info = info
        self.tensors = dict(tensors)

    def point(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """One value for each parameter in ``given``."""
        return {name: self._value(name, value) for name, value in given.items()}

    def columns(self, given: Mapping[str, Iterable[Any]]) -> dict[str, Sequence[Value]]:
        """The values that each parameter in ``given`` takes along an axis; a range stays a range."""
        return {name: self._column(name, values) for name, values in given.items()}

    def check_names(self, *groups: Mapping[str, Any]) -> None:
        """``TraceError`` unless ``groups`` together bind every parameter of the graph exactly once.

        A job may have an axis of seeds besides: ``grid={"seed": range(3)}``.
        """
        names = [name for group in groups for name in group]
        params = self._graph.params
        for name in names:
            if name not in params and name != SEED:
                raise refusal(f"the experiment has no parameter {name!r}", hint=nearest(name, params))
            if names.count(name) > 1:
                raise refusal(f"parameter {name!r} is given twice")
        missing = [name for name in params if name not in names]
        if missing:
            raise refusal(f"parameter {missing[0]!r} has no value", hint=f"give {', '.join(missing)}")

    def _column(self, name: str, values: Iterable[Any]) -> Sequence[Value]:
        if isinstance(values, range):
            return values
        if isinstance(values, str | Mapping):
            raise refusal(f"the values of parameter {name!r} are one, not several", hint=f"[{values!r}]")
        return tuple(self._value(name, value) for value in values)

    def _value(self, name: str, value: Any) -> Value:
        kind = self._graph.params.get(name)
        if kind is ParamType.TENSOR and constants.is_tensor(value):
            return TensorRef(constants.take(self.tensors, value))
        if kind is ParamType.PROMPT and self._info.sites.inputs is not None:
            return inputs_of(self._info, f"parameter {name!r}", value, self.tensors)
        if kind is ParamType.PROMPT and not isinstance(value, str):
            return _token_ids(name, value)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool | int | float | str | TensorRef):
            return value
        if constants.is_tensor(value):
            what, hint = f"a tensor of shape {list(value.shape)}", f'record it as one: param("{name}", "tensor")'
            raise refusal(f"parameter {name!r} of type {kind} cannot be {what}", hint=hint)
        raise TraceError(f"parameter {name!r} of type {kind} cannot be {value!r}")


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    try:
        return tuple(int(token) for token in value)
    except (TypeError, ValueError):
        raise refusal(f"parameter {name!r} is a prompt and cannot be {value!r}", hint="text or token ids") from None
