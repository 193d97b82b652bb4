"""What method random can draw, as pydantic models: the distributions of one parameter, in wandb's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ndif_batch.sweep.rows import cell

AT = "at"
"""In the context of an error that concerns several keys: which of them to point at."""


class Strict(BaseModel):
    """A part of a sweep file: unknown keys are errors, and so are numbers written as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _checked_cell(data: Any) -> Any:
    try:
        cell(data)
    except ValueError as error:
        raise PydanticCustomError("cell", "{why}", {"why": str(error)}) from None
    return data


CELL = BeforeValidator(_checked_cell)
Cell: TypeAlias = Annotated[bool | int | float | str | list[int], CELL]
Row: TypeAlias = list[Cell]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Between(Strict):
    @model_validator(mode="after")
    def _in_order(self) -> _Between:
        low, high = getattr(self, "min"), getattr(self, "max")  # noqa: B009 -- fields of the classes below
        if low > high:
            raise PydanticCustomError("order", "min is {low} and max is {high}", {"low": low, "high": high, AT: "max"})
        return self


class Uniform(_Between):
    """Any number from min to max."""

    distribution: Literal["uniform"]
    min: Number
    max: Number


class LogUniform(_Between):
    """A number from min to max whose logarithm is uniform; both are the numbers themselves, as in wandb's _values."""

    distribution: Literal["log_uniform"]
    min: Positive
    max: Positive


class IntUniform(_Between):
    """A whole number from min to max, both included."""

    distribution: Literal["int_uniform"]
    min: Annotated[int, Field(ge=-(2**52), le=2**52)]
    max: Annotated[int, Field(ge=-(2**52), le=2**52)]


class Normal(Strict):
    """A number around mu with the standard deviation sigma."""

    distribution: Literal["normal"]
    mu: Number = 0.0
    sigma: Positive = 1.0


class Choice(Strict):
    """One of the values, each as probable as the others unless probabilities say otherwise; rows of tied parameters."""

    distribution: Literal["choice"]
    values: Annotated[list[Cell | Row], Field(min_length=1)]
    probabilities: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Choice:
        given = self.probabilities
        if given is not None and (len(given) != len(self.values) or abs(sum(given) - 1) > 1e-6):
            raise PydanticCustomError(
                "probabilities",
                "probabilities must be one for each of the {values} values and sum up to 1, not {sum}",
                {"values": len(self.values), "sum": f"{sum(given):g} in {len(given)}", AT: "probabilities"},
            )
        return self


Drawn: TypeAlias = Annotated[Uniform | LogUniform | IntUniform | Normal | Choice, Field(discriminator="distribution")]
DISTRIBUTIONS: tuple[type[Strict], ...] = (Uniform, LogUniform, IntUniform, Normal, Choice)
KINDS = ("uniform", "log_uniform", "int_uniform", "normal", "choice")


def is_drawn(data: dict[str, Any]) -> bool:
    """Whether an entry of ``parameters`` is a distribution."""
    return "distribution" in data


def keys_of(kind: Any) -> tuple[str, ...]:
    """The keys of a distribution by its name; of all if there is none of that name."""
    known = dict(zip(KINDS, DISTRIBUTIONS, strict=True))
    models = [known[kind]] if kind in known else DISTRIBUTIONS
    return tuple(dict.fromkeys(key for model in models for key in model.model_fields))
