"""Builds the parameter space that a sweep file describes: its axes and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ndif_batch.errors import SweepError
from ndif_batch.graph.nodes import TensorRef, Value
from ndif_batch.sweep.choosing import with_rules
from ndif_batch.sweep.config import (
    Cell,
    Entry,
    ExperimentConfig,
    FileAxis,
    Method,
    PhaseValue,
    RangeAxis,
    Row,
    TensorFile,
    ValuesAxis,
    split_names,
)
from ndif_batch.sweep.distributions import Choice, IntUniform, LogUniform, Normal, Uniform
from ndif_batch.sweep.marked import Document, Location
from ndif_batch.sweep.phases import PhaseRef
from ndif_batch.sweep.points import POINT_AXIS, Sampling, listed, sampled, zipped
from ndif_batch.sweep.rows import cell, read_columns
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import SEED_AXIS

__all__ = ["POINT_AXIS", "space_of"]

MAX_TASKS = 2**40

Find: TypeAlias = Callable[[Location, str], Path]


def space_of(
    config: ExperimentConfig, document: Document, find: Find, tensors: Mapping[str, TensorRef], seed: int = 0
) -> Space:
    """The space of a sweep file; ``find`` gives the path of a file that it names, ``seed`` decides what is drawn.

    Axes keep the order of the file. ``tensors`` are the constants that it takes from files.
    """
    constants: dict[str, Value] = {}
    if isinstance(config.parameters, list):
        axes = [listed(config.parameters, document)]
    elif config.method is Method.RANDOM:
        axes, constants = _random(config.parameters, document, find, Sampling(config.samples or 0, seed))
    else:
        axes, constants = _entries(config.parameters, document, find)
        if config.method is Method.ZIP and axes:
            axes = [zipped(axes, document)]
    if config.seeds is not None:
        axes.append(Axis(SEED_AXIS, {SEED_AXIS: range(config.seeds)}))
    try:
        space = Space(tuple(axes), {**constants, **tensors})
    except SweepError as error:
        raise document.error(error.message, ("parameters",)) from None
    space = with_rules(space, config, document)
    if space.size > MAX_TASKS:
        raise document.error(f"the sweep has {space.size:,} tasks; at most {MAX_TASKS:,} are possible", ("parameters",))
    return space


def _random(
    entries: Mapping[str, Entry], document: Document, find: Find, sampling: Sampling
) -> tuple[list[Axis], dict[str, Value]]:
    """One axis of points; what has no distribution is one of its values, each as probable as the others."""
    columns: dict[str, Sequence[Value]] = {}
    plain: dict[str, Entry] = {}
    for key, entry in entries.items():
        if not isinstance(entry, Uniform | LogUniform | IntUniform | Normal | Choice):
            plain[key] = entry
            continue
        names, at = split_names(key), ("parameters", key)
        if isinstance(entry, Choice):
            rows = _rows(names, entry.values, (*at, "values"), document)
            columns |= sampling.of_rows(rows, entry.probabilities)
        elif len(names) > 1:
            raise document.error("tied parameters are drawn as rows", at, hint="use distribution: choice with rows")
        else:
            columns[names[0]] = sampling.of(names[0], entry)
    axes, constants = _entries(plain, document, find)
    return [sampled(columns, axes, sampling, list(map(split_names, entries)), document)], constants


def _entries(entries: Mapping[str, Entry], document: Document, find: Find) -> tuple[list[Axis], dict[str, Value]]:
    axes: list[Axis] = []
    constants: dict[str, Value] = {}
    for key, entry in entries.items():
        names, at = split_names(key), ("parameters", key)
        if isinstance(entry, Uniform | LogUniform | IntUniform | Normal | Choice):
            raise document.error("only method random draws values", (*at, "distribution"), hint="set method: random")
        if isinstance(entry, TensorFile):
            continue
        if isinstance(entry, bool | int | float | str):
            if len(names) > 1:
                raise document.error("tied parameters need rows", at, hint="use values: [[…], …] or file:")
            constants[names[0]] = entry
            continue
        if isinstance(entry, PhaseValue):
            if len(names) > 1:
                raise document.error("a phase gives one parameter", at)
            constants[names[0]] = PhaseRef("", entry.phase, entry.save)
            continue
        columns = _columns(names, entry, at, document, find)
        named = None if isinstance(entry, list) else entry.axis
        axes.append(Axis(named or names[0], columns))
    return axes, constants


def _columns(
    names: tuple[str, ...], entry: Entry, at: Location, document: Document, find: Find
) -> Mapping[str, Sequence[Value]]:
    if isinstance(entry, FileAxis):
        return read_columns(find((*at, "file"), entry.file), names)
    if isinstance(entry, RangeAxis):
        return {names[0]: _range(names, entry.range, (*at, "range"), document)}
    if isinstance(entry, ValuesAxis):
        return _rows(names, entry.values, (*at, "values"), document)
    assert isinstance(entry, list)
    return _rows(names, entry, at, document)


def _range(names: tuple[str, ...], bounds: list[int], at: Location, document: Document) -> range:
    if len(names) > 1:
        raise document.error("a range gives one parameter; tied parameters need rows", at, hint="use values or file")
    if len(bounds) == 3 and bounds[2] == 0:
        raise document.error("the step must not be 0", at)
    numbers = range(*bounds)
    if not numbers:
        raise document.error(f"the range {bounds} is empty", at, hint="the stop is not included")
    return numbers


def _rows(
    names: tuple[str, ...], rows: Sequence[Cell | Row], at: Location, document: Document
) -> dict[str, list[Value]]:
    columns: dict[str, list[Value]] = {name: [] for name in names}
    for i, row in enumerate(rows):
        cells = row if len(names) > 1 else [row]
        if not isinstance(cells, list) or len(cells) != len(names):
            raise document.error(f"a row must have {len(names)} values: {', '.join(names)}", (*at, i))
        for name, data in zip(names, cells, strict=True):
            try:
                columns[name].append(cell(data))
            except ValueError as error:
                raise document.error(str(error), (*at, i)) from None
    return columns
