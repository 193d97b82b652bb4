"""Reads a sweep file: where its experiment lies, which model it runs on, and its parameter space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ndif_batch.errors import NotFoundError, SweepError, nearest
from ndif_batch.graph.nodes import ParamType
from ndif_batch.sweep.axes import space_of
from ndif_batch.sweep.config import (
    FileAxis,
    Method,
    PhaseConfig,
    PhaseValue,
    RangeAxis,
    SomeRange,
    SweepConfig,
    TensorFile,
    ValuesAxis,
    split_names,
)
from ndif_batch.sweep.distributions import AT, KINDS, keys_of
from ndif_batch.sweep.marked import Document, Location, load_yaml
from ndif_batch.sweep.phases import PhaseRef
from ndif_batch.sweep.reduction import OPS, Reduction
from ndif_batch.sweep.resources import PRIORITIES, Resources, Schedule
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import SEED_AXIS
from ndif_batch.sweep.tensors import bound_tensors

_WORDS = {
    "Input should be": "must be",
    "a valid dictionary": "a mapping",
    "a valid list": "a list",
    "a valid string": "text",
    "a valid integer": "a whole number",
}

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep file, read: ``experiment`` is the ``.py`` or ``.json`` file that holds the graph.

    ``save`` are the saves to keep, None for all; ``retention_days`` None is what the settings say.
    ``tensors`` are those that the space binds, by digest.
    """

    name: str
    model: str
    experiment: Path
    space: Space
    document: Document
    save: tuple[str, ...] | None = None
    resources: Resources = field(default_factory=Resources)
    schedule: Schedule = field(default_factory=Schedule)
    retention_days: int | None = None
    reduce: Mapping[str, Reduction] = field(default_factory=dict)
    phase: str | None = None
    tensors: Mapping[str, Any] = field(default_factory=dict)

    def check(self, params: Mapping[str, ParamType], saves: Iterable[str]) -> None:
        """``SweepError`` if the space names a parameter that the graph lacks, or leaves one of the graph's out, or if
        the file keeps a save that it lacks."""
        known = list(saves)
        for i, name in enumerate(self.save or ()):
            if name not in known:
                raise self.document.error(
                    f"the experiment saves nothing called {name!r}", ("save", i), hint=nearest(name, known)
                )
        axes = [axis.name for axis in self.space.axes]
        for name, one in self.reduce.items():
            at: Location = ("reduce", name)
            if (one.save or name) not in known:
                at = (*at, "save") if one.save else at
                raise self.document.error(
                    f"the experiment saves nothing called {one.save or name!r}",
                    at,
                    hint=nearest(one.save or name, known),
                )
            if not set(one.axes) & set(axes):
                raise self.document.error(
                    f"no axis of the sweep is called {' or '.join(map(repr, one.axes))}",
                    (*at, "axis"),
                    hint=nearest(one.axes[0], axes),
                )
        for name in self.space.params:
            if name not in params and name != SEED_AXIS:
                raise self.document.error(
                    f"the experiment has no parameter {name!r}", self._where(name), hint=nearest(name, params)
                )
        for name in params:
            if name not in self.space.params:
                raise self.document.error(
                    f"the experiment's parameter {name!r} has no value", ("parameters",), hint=f"add `{name}: …`"
                )

    def check_phases(self, earlier: Sequence[str]) -> None:
        """``SweepError`` if it takes something from a phase that is not before it."""
        for name, value in self.space.constants.items():
            if isinstance(value, PhaseRef) and value.phase not in earlier:
                at = (*self._where(name), "phase")
                raise self.document.error(
                    f"no phase before this one is called {value.phase!r}", at, hint=nearest(value.phase, earlier)
                )

    @contextmanager
    def placing_errors(self) -> Iterator[None]:
        """Inside, a ``SweepError`` that names a key of the file gets its line, too."""
        try:
            yield
        except SweepError as error:
            at = tuple((error.key or "").split("."))
            if error.line is not None or at[0] not in self.document.data:
                raise
            raise self.document.error(error.message.removeprefix(f"{error.key}: "), at, hint=error.hint) from None

    def _where(self, name: str) -> Location:
        entries = self.document.data.get("parameters", {})
        if isinstance(entries, list):
            return ("parameters", 0, name)
        return ("parameters", next((key for key in entries if name in split_names(key)), name))


def load_sweep(path: Path, variables: Mapping[str, Any] | None = None, seed: int = 0) -> Sweep:
    """Read a sweep file of one job; ``variables`` take the place of those that it declares under ``variables:``.

    ``seed`` decides what method random draws.
    """
    phases = load_phases(path, variables, seed)
    if phases[0].phase is not None:
        raise phases[0].document.error("here a sweep is one job, without phases", ())
    return phases[0]


def load_phases(path: Path, variables: Mapping[str, Any] | None = None, seed: int = 0) -> list[Sweep]:
    """Read a sweep file: its jobs, one after the other, each of which may take what earlier ones save."""
    document = _substituted(load_yaml(path), variables or {})
    config = _validated(document)
    if config.phases is None:
        return [_sweep(config, config, document, path, seed)]
    found: list[Sweep] = []
    for number, phase in enumerate(config.phases):
        found.append(_sweep(config, phase, document.part("phases", number), path, seed))
        found[-1].check_phases([one.phase for one in found[:-1] if one.phase is not None])
    return found


def _sweep(whole: SweepConfig, config: SweepConfig | PhaseConfig, document: Document, path: Path, seed: int) -> Sweep:
    phase = config.name if isinstance(config, PhaseConfig) else None
    find = partial(_found, document, folder=path.parent)
    bound, tensors = bound_tensors(config, document, find)
    key, experiment = ("job", config.job) if config.job is not None else ("graph", config.graph or "")
    return Sweep(
        name=whole.name if phase is None else f"{whole.name}-{phase}",
        model=whole.model,
        experiment=find((key,), experiment),
        space=space_of(config, document, find, bound, seed),
        document=document,
        save=None if config.save is None else tuple(dict.fromkeys(config.save)),
        resources=whole.resources,
        schedule=whole.schedule,
        retention_days=whole.retention_days,
        reduce=config.reduce or {},
        phase=phase,
        tensors=tensors,
    )


def _found(document: Document, at: Location, name: str, folder: Path) -> Path:
    """The file ``name``: absolute, beside the sweep file, or in the nearest directory above that has it."""
    for base in (folder, *folder.resolve().parents):
        if (base / name).is_file():
            return base / name
    error = document.error(f"there is no file {name!r}", at, hint=f"looked in {folder} and every directory above it")
    raise NotFoundError(error.message, hint=error.hint)


def _substituted(document: Document, given: Mapping[str, Any]) -> Document:
    data = document.data
    if not isinstance(data, dict):
        raise document.error("a sweep file is a mapping of keys", (), hint="start with `version: 1`")
    declared = data.get("variables", {})
    if not isinstance(declared, dict):
        raise document.error("must be a mapping of names to values", ("variables",))
    for name in given:
        if name not in declared:
            raise SweepError(
                f"the sweep declares no variable {name!r}", file=document.file, hint=nearest(name, declared)
            )
    declared = {**declared, **given}
    scalars = {key: value for key, value in data.items() if not isinstance(value, dict | list)}
    names = {**scalars, **declared}
    body = {
        key: value if key == "variables" else _filled(value, (key,), names, document) for key, value in data.items()
    }
    return Document(document.file, {**body, **({"variables": declared} if declared else {})}, document.lines)


def _filled(data: Any, at: Location, names: Mapping[str, Any], document: Document) -> Any:
    if isinstance(data, dict):
        return {key: _filled(value, (*at, key), names, document) for key, value in data.items()}
    if isinstance(data, list):
        return [_filled(item, (*at, i), names, document) for i, item in enumerate(data)]
    if not isinstance(data, str):
        return data

    def value(found: re.Match[str]) -> Any:
        escaped, name = found.groups()
        if escaped:
            return found.group()[1:]
        if name not in names:
            raise document.error(f"there is no variable {name!r}", at, hint=nearest(name, names))
        return names[name]

    whole = _VARIABLE.fullmatch(data)
    return value(whole) if whole else _VARIABLE.sub(lambda found: str(value(found)), data)


def _validated(document: Document) -> SweepConfig:
    try:
        return SweepConfig.model_validate(document.data)
    except ValidationError as error:
        raise _readable(document, error.errors(include_url=False)) from None


def _readable(document: Document, errors: Sequence[ErrorDetails]) -> SweepError:
    """The first error in the order of lines; a missing key comes last, as it may be one that is misspelt."""
    placed = [(_location(document.data, _places(error)), error) for error in errors]
    at, error = min(placed, key=lambda pair: (pair[1]["type"] == "missing", document.line(pair[0])))
    within = at[2:] if at[:1] == ("phases",) else at
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(document, at)
        case "missing":
            return document.error(f"the key {error['loc'][-1]!r} is missing", at)
        case "enum" if within == ("method",):
            known = [method.value for method in Method]
            return document.error(_plainly(error["msg"]), at, hint=nearest(str(error["input"]), known))
        case "literal_error" if within[0] == "reduce" and at[-1] == "op":
            return document.error(f"there is no op {error['input']!r}", at, hint=nearest(str(error["input"]), OPS))
        case "literal_error" if at == ("schedule", "priority"):
            return document.error(
                f"{_plainly(error['msg'])}, or a whole number", at, hint=nearest(str(error["input"]), PRIORITIES)
            )
        case "union_tag_invalid":
            kind = error["input"].get("distribution")
            return document.error(
                f"there is no distribution {kind!r}", (*at, "distribution"), hint=nearest(str(kind), KINDS)
            )
        case "entry" if isinstance(error["input"], dict) and error["input"]:
            key = next(iter(error["input"]))
            return document.error(error["msg"], (*at, key), hint=nearest(key, _keys(document, at)))
    return document.error(_plainly(error["msg"]), at)


def _places(error: ErrorDetails) -> tuple[str | int, ...]:
    """pydantic's location, with the key to point at where an error concerns several of a mapping."""
    key = error.get("ctx", {}).get(AT)
    return error["loc"] if key is None else (*error["loc"], key)


def _plainly(message: str) -> str:
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return re.sub(r" or instance of \w+", "", message)


def _unknown_key(document: Document, at: Location) -> SweepError:
    key = str(at[-1])
    return document.error(f"unknown key {key!r}", at, hint=nearest(key, _keys(document, at[:-1])))


def _keys(document: Document, at: Location) -> tuple[str, ...]:
    """The keys that there may be in the mapping at a place."""
    match at:
        case ():
            return tuple(SweepConfig.model_fields if not document.root else PhaseConfig.model_fields)
        case ("phases", int(number), *rest):
            return _keys(document.part("phases", number), tuple(rest))
        case ("resources", *_):
            return tuple(Resources.model_fields)
        case ("schedule", *_):
            return tuple(Schedule.model_fields)
        case ("reduce", *_):
            return tuple(Reduction.model_fields)
        case ("exclude" | "include", *_):
            return (*SomeRange.model_fields, "values")
    entry = document.data["parameters"][at[1]]
    if isinstance(entry, dict) and "distribution" in entry:
        return keys_of(entry["distribution"])
    return (
        *RangeAxis.model_fields,
        *ValuesAxis.model_fields,
        *FileAxis.model_fields,
        *TensorFile.model_fields,
        *PhaseValue.model_fields,
        "distribution",
    )


def _location(data: Any, loc: Sequence[str | int]) -> Location:
    """pydantic's location without the parts that name a branch of a union."""
    at: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        at.append(part)
    return tuple(at)
