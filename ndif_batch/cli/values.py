"""Parameter values from the command line: ``name=value``, read by the type of the parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ndif_batch.errors import SweepError, nearest
from ndif_batch.graph.nodes import ParamType, Value
from ndif_batch.sweep.axes import POINT_AXIS
from ndif_batch.sweep.config import split_names
from ndif_batch.sweep.marked import read_text, typed
from ndif_batch.sweep.rows import cell, read_columns
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import SEED_AXIS

_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
_INT = re.compile(r"[-+]?\d+")


def space_from(
    params: Mapping[str, ParamType], constants: Sequence[str], grid: Sequence[str], tied: Sequence[str]
) -> Space:
    """The space of ``-S``, ``--grid`` and ``--zip`` options: an axis for each of ``grid``, one for all of ``tied``.

    ``SweepError`` names an option that is no ``name=value`` or does not fit its parameter.
    """
    fixed = [_constant(params, *_split(text)) for text in constants]
    columns = [_columns(params, *_split(text)) for text in grid]
    axes = [Axis(next(iter(names)), names) for names in columns]
    zipped = [pair for text in tied for pair in _columns(params, *_split(text)).items()]
    if zipped:
        axes.append(Axis(zipped[0][0] if len(zipped) == 1 else POINT_AXIS, dict(zipped)))
    for names in ([name for name, _ in fixed], [name for name, _ in zipped]):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SweepError(f"parameter {twice[0]!r} is given twice")
    return Space(tuple(axes), dict(fixed))


def variables_from(options: Sequence[str]) -> dict[str, Any]:
    """The ``-S name=value`` options of a sweep file's variables, typed as YAML reads them."""
    return {name: typed(value) for name, value in map(_split, options)}


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SweepError(f"{text!r} is not name=value", hint="write, for example, layer=0:12")
    return name.strip(), value


def _file(text: str) -> Path | None:
    """The file that ``@name`` stands for; ``@@`` is a text that starts with ``@``."""
    return Path(text[1:]) if text.startswith("@") and not text.startswith("@@") else None


def _plain(text: str) -> str:
    return text[1:] if text.startswith("@@") else text


def _kind(params: Mapping[str, ParamType], name: str) -> ParamType:
    if name == SEED_AXIS and name not in params:
        return ParamType.INT
    if name not in params:
        raise SweepError(f"the experiment has no parameter {name!r}", hint=nearest(name, params))
    return params[name]


def _constant(params: Mapping[str, ParamType], name: str, text: str) -> tuple[str, Value]:
    kind, path = _kind(params, name), _file(text)
    return name, _value(name, _plain(text), kind) if path is None else _from_json(name, path)


def _columns(params: Mapping[str, ParamType], key: str, text: str) -> Mapping[str, Sequence[Value]]:
    names, path = split_names(key), _file(text)
    kinds = [_kind(params, name) for name in names]
    if path is not None:
        return read_columns(path, names)
    if len(names) > 1:
        raise SweepError(f"tied parameters {key} take their values from a file", hint=f"write {key}=@pairs.jsonl")
    return {names[0]: _column(names[0], _plain(text), kinds[0])}


def _column(name: str, text: str, kind: ParamType) -> Sequence[Value]:
    found = _RANGE.fullmatch(text)
    if found and kind in (ParamType.INT, ParamType.FLOAT):
        start, stop, step = (int(part) if part is not None else 1 for part in found.groups())
        numbers = range(start, stop, step) if step else range(0)
        if not numbers:
            raise SweepError(f"parameter {name!r}: the range {text} is empty", hint="the stop is not included")
        return numbers
    if kind is ParamType.PROMPT:
        return [text]
    return [_value(name, part, kind) for part in text.split(",")]


def _value(name: str, text: str, kind: ParamType) -> Value:
    """One value by the parameter's type; text of an ``int`` stands for its one token."""
    match kind:
        case ParamType.INT:
            return int(text) if _INT.fullmatch(text) else text
        case ParamType.FLOAT:
            try:
                return float(text)
            except ValueError:
                raise SweepError(f"parameter {name!r} is a number and cannot be {text!r}") from None
        case ParamType.BOOL:
            if text.lower() not in ("true", "false"):
                raise SweepError(f"parameter {name!r} is true or false and cannot be {text!r}")
            return text.lower() == "true"
        case ParamType.TENSOR:
            raise SweepError(
                f"parameter {name!r} is a tensor",
                hint="bind it in a sweep file, {tensor: FILE.safetensors}, or submit from Python",
            )
        case ParamType.PROMPT | ParamType.STR:
            return text


def _from_json(name: str, path: Path) -> Value:
    try:
        return cell(json.loads(read_text(path)))
    except json.JSONDecodeError as error:
        raise SweepError(f"{error.msg} at column {error.colno}", file=str(path), line=error.lineno, key=name) from None
    except ValueError as error:
        raise SweepError(str(error), file=str(path), key=name) from None
