"""What nnsight's blocks save: recorded values in variables, lists and dictionaries, and the results in their places."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

import torch
from nnsight.tracing.tracer import _saves, mark

from ndif_batch.trace.proxy import Fields, Proxy

LONGEST = 48

GONE: Any = object()
"""Stands for a value that was not computed: that of a step which a generation did not take."""


class Saved:
    """The recorded values that leave blocks, by names made of those of their variables.

    ``scopes`` are nnsight's, a dictionary of variables for each block, and the names that the block uses.
    """

    def __init__(self, scopes: Collection[tuple[Any, Collection[str]]]) -> None:
        self.values: dict[str, Proxy] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._operations: dict[int, str] = {}
        self._scopes = scopes
        self._seen: set[tuple[int, bool]] = set()
        self._variables: dict[str, Any] = {}
        for scope, used in scopes:
            for name in sorted(used):
                if dict.__contains__(scope, name):
                    self.take(name, scope[name], id(scope[name]) in _saves())
                    if id(scope[name]) in _saves():
                        self._variables[name] = scope[name]

    def take(self, name: str, value: Any, wanted: bool = True) -> None:
        """Names the recorded values in ``value``: all that are ``wanted``, else those that are saved themselves."""
        wanted = wanted or id(value) in _saves()
        if (id(value), wanted) in self._seen:
            return
        if isinstance(value, Proxy):
            if wanted and id(value) not in self._names:
                parts = [(name, value)]
                if isinstance(value, Fields):
                    self._operations[id(value)] = value.operation
                    parts = [(f"{name}.{i}", item) for i, item in enumerate(value)]
                self._names[id(value)] = tuple(self._named(*part) for part in parts)
        elif isinstance(value, list | tuple | dict):
            self._seen.add((id(value), wanted))
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self.take(f"{name}.{key}", item, wanted)

    def put(self, results: Mapping[str, Any]) -> None:
        """Puts results where the recorded values stood; lists and dictionaries stay the same objects."""
        for scope, used in self._scopes:
            for name in sorted(used):
                if dict.__contains__(scope, name):
                    new = self.resolved(scope[name], results)
                    if new is GONE:
                        scope.written.discard(name)
                    elif name in scope.written:
                        scope[name] = new

    def variables(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """The saved variables with results in them."""
        known = {name: self.resolved(value, results) for name, value in self._variables.items()}
        return {name: value for name, value in known.items() if value is not GONE}

    def resolved(self, value: Any, results: Mapping[str, Any]) -> Any:
        """``value`` with results for the recorded values in it; saved if it was."""
        new = self._resolved(value, results, set())
        return mark(new) if id(value) in _saves() else new

    def _resolved(self, value: Any, results: Mapping[str, Any], seen: set[int]) -> Any:
        if isinstance(value, Proxy):
            names = self._names.get(id(value), ())
            if not names:
                return value
            found = [results[name] for name in names if name in results]
            if len(found) < len(names):
                return GONE
            operation = self._operations.get(id(value))
            return found[0] if operation is None else getattr(torch.return_types, operation)(found)
        if not isinstance(value, list | tuple | dict) or id(value) in seen:
            return value
        seen.add(id(value))
        old = dict(value if isinstance(value, dict) else enumerate(value))
        new = {key: known for key, item in old.items() if (known := self._resolved(item, results, seen)) is not GONE}
        if all(key in new and new[key] is item for key, item in old.items()):
            return value
        if isinstance(value, tuple):
            named = hasattr(value, "_fields") and len(new) == len(value)
            return type(value)(*new.values()) if named else tuple(new.values())
        value.clear()
        if isinstance(value, dict):
            value.update(new)
        else:
            value.extend(new.values())
        return value

    def _named(self, name: str, value: Proxy) -> str:
        clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:LONGEST]
        free = next(new for i in count() if (new := f"{clean}-{i}" if i else clean) not in self.values)
        self.values[free] = value
        return free
