"""What a sweep file keeps of a save in place of every task's value."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from ndif_batch.sweep.distributions import Strict

Word: TypeAlias = Annotated[str, Field(min_length=1)]
Op: TypeAlias = Literal["mean", "sum", "var", "std", "cov", "gram", "count", "min", "max", "topk"]
OPS: tuple[str, ...] = get_args(Op)


class Reduction(Strict):
    """A statistic of one save over axes of the parameters, and dimensions of the save's own."""

    axis: Annotated[
        Word | Annotated[list[Word], Field(min_length=1)], Field(description="Over which axes; the others stay.")
    ]
    op: Annotated[Op, Field(description="Which statistic; gram is XᵀX, cov the same of what is centred.")]
    save: Annotated[Word, Field(description="Of which save; that of the key's name if absent.")] | None = None
    k: Annotated[int, Field(ge=1, le=10_000, description="How many values topk keeps.")] | None = None
    ddof: Annotated[int, Field(ge=0, le=1, description="Taken from the count by var, std and cov.")] = 0

    @property
    def axes(self) -> list[str]:
        """The axes as a list."""
        return [self.axis] if isinstance(self.axis, str) else self.axis
