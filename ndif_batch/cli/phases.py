"""The jobs of a sweep file, planned one after the other: later ones take what earlier ones save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ndif_batch.client import Client, JobHandle, Plan
    from ndif_batch.client.saved import SavedRef
    from ndif_batch.sweep.load import Sweep

    Planned: TypeAlias = tuple[Sweep, Plan]
    Find: TypeAlias = Callable[[str, str], SavedRef]


def read_phases(config: Path, variables: Sequence[str], seed: int) -> list[Sweep]:
    """The jobs of a sweep file, in order; one if it has no phases."""
    from ndif_batch.cli.values import variables_from
    from ndif_batch.sweep.load import load_phases

    return load_phases(config, variables_from(variables), seed)


def plan_phase(client: Client, sweep: Sweep, find: Find) -> Planned:
    """A job of a sweep file and its checked plan; ``find`` gives the result of an earlier phase by both their names."""
    from ndif_batch.cli.experiments import load_experiment
    from ndif_batch.client.prompts import read_prompts
    from ndif_batch.client.saved import each
    from ndif_batch.errors import NotFoundError, UsageError
    from ndif_batch.sweep.phases import PhaseRef

    info = client.model_info(sweep.model)
    found = load_experiment(sweep.experiment, lambda: client.language_model(sweep.model))
    sweep.check(found.graph.params, found.graph.saves())
    refs: dict[PhaseRef, SavedRef] = {}
    for name, value in sweep.space.constants.items():
        if isinstance(value, PhaseRef):
            try:
                refs[value] = find(value.phase, value.save)
            except (NotFoundError, UsageError) as error:
                raise sweep.document.error(error.message, ("parameters", name, "save"), hint=error.hint) from None
    space = each(sweep.space, lambda value: refs[value] if isinstance(value, PhaseRef) else value)
    space, read = read_prompts(found.graph, space, info, Path(sweep.document.file).parent)
    constants = {**found.constants, **sweep.tensors, **read}
    with sweep.placing_errors():
        plan = client.prepare(found.graph, space, info, constants=constants, save=sweep.save, reduce=sweep.reduce)
    return sweep, plan


def preflight(client: Client, config: Path, variables: Sequence[str], seed: int) -> list[Planned]:
    """All jobs of a sweep file, planned before the first is queued."""
    planned: list[Planned] = []
    for sweep in read_phases(config, variables, seed):
        planned.append(plan_phase(client, sweep, planned_results(client, planned, seed)))
    return planned


def planned_results(client: Client, planned: Sequence[Planned], seed: int) -> Find:
    """Finds what phases will save: as an earlier job of the same has it, or as a job that is not there yet."""
    from ndif_batch.client.reuse import identity
    from ndif_batch.client.saved import saved_ref

    plans = {sweep.phase: plan for sweep, plan in planned}

    def find(phase: str, save: str) -> SavedRef:
        plan = plans[phase]
        known = client.earlier(plan, seed=seed) if all(ref.job for ref in plan.saved.values()) else None
        if known is not None:
            return known.saved(save)
        same = identity(plan.graph, plan.model, {"nan": "allow", "layout": "auto"}, seed)
        return saved_ref(0, same, plan.space.to_json(), seed, plan.arrays_to_json(), save)

    return find


def results_of(begun: Mapping[str | None, JobHandle]) -> Find:
    """Finds what the jobs of phases save."""
    return lambda phase, save: begun[phase].saved(save)


def stale(job: JobHandle, planned: Plan) -> bool:
    """Whether a job that has not begun waits for other jobs than those that its phase now comes after."""
    return job.record.awaiting and set(job.record.after) != {ref.job for ref in planned.saved.values()}
