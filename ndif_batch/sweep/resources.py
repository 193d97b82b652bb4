"""What a sweep file asks of the cluster: resources in submitit's words, and its place in the queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ndif_batch.sweep.distributions import Strict

Count: TypeAlias = Annotated[int, Field(ge=0)]
Word: TypeAlias = Annotated[str, Field(min_length=1)]

SLURM = ("partition", "account", "qos", "constraint")
PRIORITIES = {"low": -10, "normal": 0, "high": 10}


class Resources(Strict):
    """What the workers of the job should have at least, in submitit's words, those of Slurm without ``slurm_``.

    Workers belong to a model, not to a job: this is compared with what they get, and told where it differs.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    gpus_per_node: Count | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    timeout_min: Annotated[int, Field(ge=1)] | None = None

    def words(self) -> dict[str, Any]:
        """Those that are given, in the words of the settings of pilots."""
        given = self.model_dump(exclude_none=True)
        return {f"slurm_{name}" if name in SLURM else name: value for name, value in given.items()}


class Schedule(Strict):
    """Which jobs go first, and how often a shard that failed is tried again."""

    priority: Literal["low", "normal", "high"] | Annotated[int, Field(ge=-1000, le=1000)] = "normal"
    max_retries: Annotated[int, Field(ge=0, le=100)] = 2

    @property
    def number(self) -> int:
        """The priority as the queue has it."""
        return PRIORITIES[self.priority] if isinstance(self.priority, str) else self.priority
