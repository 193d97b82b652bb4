"""The sweep file, version 1: what its YAML may say, as pydantic models that also give its JSON Schema."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ndif_batch.graph.syntax import SAVE_NAME
from ndif_batch.sweep.distributions import AT, CELL, Cell, Drawn, Row, Strict, is_drawn
from ndif_batch.sweep.reduction import Reduction
from ndif_batch.sweep.resources import Resources, Schedule

PHASE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$"

SCHEMA_ID = "urn:ndif-batch:sweep:v1"

__all__ = ["Cell", "Method", "Row", "SweepConfig", "split_names", "sweep_schema"]


class Method(StrEnum):
    """How parameters make up the space: every combination, row by row, the points as they are listed, or drawn."""

    GRID = "grid"
    ZIP = "zip"
    LIST = "list"
    RANDOM = "random"


def _checked_names(text: str) -> str:
    for name in split_names(text):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise PydanticCustomError("name", "{name} is not a name: use letters, digits and _", {"name": repr(name)})
    return text


def split_names(key: str) -> tuple[str, ...]:
    """The parameters that a key of ``parameters`` names: ``"clean,corrupted"`` ties two of them."""
    return tuple(name.strip() for name in key.split(","))


Scalar: TypeAlias = bool | int | float | str
Constant: TypeAlias = Annotated[Scalar, CELL]
Names: TypeAlias = Annotated[str, AfterValidator(_checked_names)]
AxisName: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the axis in the results.")
]


class RangeAxis(Strict):
    """Whole numbers as Python's ``range`` counts them: the stop is not included."""

    range: Annotated[list[int], Field(min_length=2, max_length=3, description="[start, stop] or [start, stop, step].")]
    axis: AxisName | None = None


class ValuesAxis(Strict):
    """Values one by one; for tied parameters a list of rows."""

    values: Annotated[list[Cell | Row], Field(min_length=1)]
    axis: AxisName | None = None


class FileAxis(Strict):
    """Columns of a JSONL, JSON, CSV or YAML file; a path is looked for beside the sweep file, then above it."""

    file: str
    axis: AxisName | None = None


class TensorFile(Strict):
    """A tensor of a safetensors file; a path is looked for beside the sweep file, then above it."""

    tensor: str
    name: (
        Annotated[str, Field(description="Its name in the file; the parameter's, or the only one's, if absent.")] | None
    ) = None


class PhaseValue(Strict):
    """What an earlier phase saves, or keeps of it, under a name: a tensor."""

    phase: Annotated[str, Field(pattern=PHASE, description="Name of an earlier phase of this file.")]
    save: Annotated[str, Field(min_length=1, description="One of its results, whole.")]


def _entry_tag(data: Any) -> str | None:
    if isinstance(data, list):
        return "<items>"
    if not isinstance(data, dict):
        return "<constant>"
    if is_drawn(data):
        return "<distribution>"
    return next((f"<{kind}>" for kind in ("range", "values", "file", "tensor", "phase") if kind in data), None)


Entry: TypeAlias = Annotated[
    Annotated[RangeAxis, Tag("<range>")]
    | Annotated[ValuesAxis, Tag("<values>")]
    | Annotated[FileAxis, Tag("<file>")]
    | Annotated[TensorFile, Tag("<tensor>")]
    | Annotated[PhaseValue, Tag("<phase>")]
    | Annotated[Drawn, Tag("<distribution>")]
    | Annotated[Annotated[list[Cell | Row], Field(min_length=1)], Tag("<items>")]
    | Annotated[Constant, Tag("<constant>")],
    Discriminator(
        _entry_tag,
        custom_error_type="entry",
        custom_error_message=(
            "a parameter is a constant, a list, or one of range, values, file, tensor, phase, distribution"
        ),
    ),
]
"""What varies (a range, values, a file, a plain list, what is drawn), or a constant (a tensor, too)."""

Parameters: TypeAlias = Annotated[
    Annotated[dict[Names, Entry], Tag("<axes>")]
    | Annotated[Annotated[list[dict[Names, Cell]], Field(min_length=1)], Tag("<points>")],
    Discriminator(lambda data: "<points>" if isinstance(data, list) else "<axes>"),
]


class SomeRange(Strict):
    """The whole numbers of a range; the stop is not included."""

    range: Annotated[list[int], Field(min_length=2, max_length=3, description="[start, stop] or [start, stop, step].")]


class SomeValues(Strict):
    """Several values."""

    values: Annotated[list[Cell], Field(min_length=1)]


Some: TypeAlias = Annotated[
    Annotated[SomeRange, Tag("<range>")] | Annotated[SomeValues, Tag("<values>")] | Annotated[Cell, Tag("<value>")],
    Discriminator(
        lambda data: (
            next((f"<{kind}>" for kind in ("range", "values") if kind in data), None)
            if isinstance(data, dict)
            else "<value>"
        ),
        custom_error_type="entry",
        custom_error_message="give a value, or one of range, values",
    ),
]
"""Which values of one parameter: one, a range, or several."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Points: TypeAlias = Annotated[
    list[Annotated[dict[Name, Some], Field(min_length=1)]],
    Field(min_length=1),
]


SaveName: TypeAlias = Annotated[str, Field(pattern=rf"^(?:{SAVE_NAME})$")]


class ExperimentConfig(Strict):
    """An experiment, the values of its parameters, and what is kept."""

    job: Annotated[str, Field(min_length=1, description="A Python file with build(lm).")] | None = None
    graph: Annotated[str, Field(min_length=1, description="A graph in JSON.")] | None = None
    method: Annotated[Method, Field(strict=False, description="How parameters make up the space.")] = Method.GRID
    samples: Annotated[int, Field(ge=1, description="How many points method random draws.")] | None = None
    parameters: Parameters = Field(default_factory=dict)
    exclude: Annotated[Points, Field(description="Points that do not run: all that have these values.")] | None = None
    include: (
        Annotated[Points, Field(description="Points that run as well, after exclude: with every value not named.")]
        | None
    ) = None
    seeds: (
        Annotated[int, Field(ge=1, description="Repeats every point with seeds 0, 1, …: one more axis, `seed`.")] | None
    ) = None
    save: (
        Annotated[list[str], Field(min_length=1, description="Which of the experiment's saves to keep; all if absent.")]
        | None
    ) = None
    reduce: (
        Annotated[
            dict[SaveName, Reduction], Field(description="Statistics that are kept in place of every task's value.")
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_experiment(self) -> Self:
        if getattr(self, "phases", None) is not None:
            return self
        if (self.job is None) == (self.graph is None):
            where = {} if self.job is None else {AT: "graph"}
            raise PydanticCustomError("experiment", "give either job: FILE.py or graph: FILE.json", where)
        if (self.method is Method.LIST) != isinstance(self.parameters, list):
            want = "a list of points" if self.method is Method.LIST else "a mapping of names"
            raise PydanticCustomError(
                "points",
                "with method {method}, parameters is {want}",
                {"method": self.method.value, "want": want, AT: "parameters"},
            )
        if (self.method is Method.RANDOM) != (self.samples is not None):
            raise PydanticCustomError(
                "samples",
                "method: random and samples: N go together; one of them is missing",
                {AT: "method" if self.samples is None else "samples"},
            )
        return self


class PhaseConfig(ExperimentConfig):
    """One job of several: it begins when those whose results it takes are completed."""

    name: Annotated[str, Field(pattern=PHASE, description="Name of the phase; the job's is SWEEP-PHASE.")]


class SweepConfig(ExperimentConfig):
    """An experiment, a model, and the values of the experiment's parameters; or several in phases."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the job.")]
    model: Annotated[str, Field(min_length=1, description="A model's name, as `ndif-batch model ls` shows it.")]
    phases: (
        Annotated[
            list[PhaseConfig],
            Field(
                min_length=1, max_length=64, description="Experiments of which later ones use earlier ones' results."
            ),
        ]
        | None
    ) = None
    resources: Resources = Field(default_factory=Resources)
    schedule: Schedule = Field(default_factory=Schedule)
    retention_days: (
        Annotated[int, Field(ge=1, le=36_500, description="Results are deleted so many days after the job's end.")]
        | None
    ) = None
    variables: Annotated[dict[Names, Constant], Field(description="What ${name} stands for; -S sets it.")] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _experiment_or_phases(self) -> SweepConfig:
        if self.phases is None:
            return self
        beside = next((key for key in ExperimentConfig.model_fields if key in self.model_fields_set), None)
        if beside is not None:
            raise PydanticCustomError("phases", "{key} belongs into a phase", {"key": beside, AT: beside})
        names = [phase.name for phase in self.phases]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise PydanticCustomError("phases", "two phases are called {name}", {"name": repr(twice), AT: "phases"})
        return self


def sweep_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a sweep file."""
    schema = SweepConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}
