"""Parameters of an experiment and what the recording learns of their types from how they are used."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import ParamRef, ParamType
from ndif_batch.graph.syntax import PARAM_NAME
from ndif_batch.trace.active import open_recorder
from ndif_batch.trace.operand import Operand
from ndif_batch.trace.place import refusal, user_place

RESERVED = (
    *("grid", "zip", "name", "seed", "hold", "key", "priority", "max_retries", "nan", "layout", "reuse"),
    *("reduce", "after"),
)
"""Keywords of ``t.run`` and ``t.submit``, which a parameter cannot be called."""

_PYTHON = {int: ParamType.INT, float: ParamType.FLOAT, bool: ParamType.BOOL, str: ParamType.STR}
_MEANING = {
    ParamType.PROMPT: "as a prompt",
    ParamType.INT: "as a position, a size or a module's number",
    ParamType.FLOAT: "in arithmetic",
    ParamType.BOOL: "as a yes or no",
    ParamType.STR: "as a word",
    ParamType.TENSOR: "as a tensor",
}


class Param(Operand):
    """A value that each task binds anew. Stands wherever a prompt, a number, a position or a module's number may."""

    __slots__ = ("explicit", "param_name")

    def __init__(self, name: str, explicit: ParamType | None) -> None:
        self.param_name = name
        self.explicit = explicit

    def __repr__(self) -> str:
        return f"param({self.param_name!r})"

    def __getitem__(self, index: Any) -> Any:
        return self._apply("getitem", self, index)


def param(name: str, type: ParamType | str | type[Any] | None = None) -> Param:  # noqa: A002 -- the word users know
    """A parameter called ``name``.

    ``type`` is ``"prompt"``, ``"int"``, ``"float"``, ``"bool"``, ``"str"`` or ``"tensor"``; without one it follows from
    the uses: a prompt where a run takes it, ``int`` in an index or a module path, ``float`` in arithmetic only.
    """
    if not re.fullmatch(PARAM_NAME, name):
        raise refusal(f"{name!r} is no name for a parameter", hint="use letters, digits and underscores")
    if name in RESERVED:
        raise refusal(f"a parameter cannot be called {name!r}", hint="t.run and t.submit use this word themselves")
    made = Param(name, None if type is None else _param_type(type))
    recorder = open_recorder()
    if recorder is not None:
        recorder.parameters.meet(made)
    return made


@dataclass(slots=True)
class _Seen:
    explicit: ParamType | None = None
    declared: str = ""
    uses: dict[ParamType, str] = field(default_factory=dict)
    number: bool = False


class Parameters:
    """Every parameter met in one recording, in the order of meeting, and the places of its uses."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def meet(self, param: Param) -> ParamRef:
        """Notes that the parameter exists and the type it was given."""
        seen = self._seen.setdefault(param.param_name, _Seen(declared=user_place()))
        if param.explicit is not None:
            if seen.explicit not in (None, param.explicit):
                raise refusal(f"parameter {param.param_name!r} is both {seen.explicit} and {param.explicit}")
            seen.explicit = param.explicit
        return ParamRef(param.param_name)

    def use(self, name: str, kind: ParamType | None) -> None:
        """Notes a use as ``kind``; ``None`` is arithmetic, which takes any number and means ``float`` by itself."""
        seen = self._seen[name]
        if kind is None:
            seen.number = True
        else:
            seen.uses.setdefault(kind, user_place())
        if seen.explicit is None and (len(seen.uses) > 1 or (seen.number and not _numeric(seen.uses))):
            uses = [*(f"{_MEANING[kind]} ({place})" for kind, place in seen.uses.items())]
            uses += ["in arithmetic"] if seen.number else []
            raise refusal(
                f"parameter {name!r} is used in ways that exclude each other: {' and '.join(uses)}",
                hint=f"use two parameters, or give the type: param({name!r}, type=…)",
            )

    def place(self, name: str) -> str:
        """The user's line where the parameter was first met."""
        return self._seen[name].declared

    def explicit(self, name: str) -> ParamType | None:
        """The type that the user gave, if he gave one."""
        return self._seen[name].explicit

    def types(self) -> dict[str, ParamType]:
        """The type of every parameter; ``TraceError`` for one that nothing uses."""
        for name, seen in self._seen.items():
            if not seen.uses and not seen.number:
                raise TraceError(f"{seen.declared}: parameter {name!r} is not used", hint="remove it")
        return {name: seen.explicit or next(iter(seen.uses), ParamType.FLOAT) for name, seen in self._seen.items()}


def _numeric(uses: dict[ParamType, str]) -> bool:
    return set(uses) <= {ParamType.INT, ParamType.FLOAT, ParamType.TENSOR}


def _param_type(given: ParamType | str | type[Any]) -> ParamType:
    if isinstance(given, type):
        given = _PYTHON.get(given, given.__name__)
    try:
        return ParamType(given)
    except ValueError:
        raise refusal(f"{given!r} is no type of a parameter", hint=f"one of {', '.join(ParamType)}") from None
