"""What is done from the pages: each action is a method of the queue's protocol, by who is logged in, for a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from ndif_batch.errors import ConflictError, NdifBatchError, UsageError
from ndif_batch.queue.access import Scope
from ndif_batch.queue.cluster import Quotas
from ndif_batch.queue.controls import HALF_LIFE
from ndif_batch.queue.http import ENDPOINTS
from ndif_batch.queue.routes import ACTOR, Argument
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.dashboard.form import Form


@dataclass(frozen=True, slots=True)
class Done:
    """What is told of an action: a line, whether only a part of it happened, and a secret that is shown this once."""

    told: str
    partly: bool = False
    secret: str | None = None


Do: TypeAlias = Callable[[CallerQueue, Form], Done]
Read: TypeAlias = Callable[[Form], Any]


@dataclass(frozen=True, slots=True)
class Action:
    """An action, and whether nobody may do it without saying why."""

    do: Do
    needs_reason: bool = True


def carry_out(action: Action, queue: CallerQueue, form: Form) -> Done:
    """Do it; ``NotAllowedError`` for who may not, ``UsageError`` without the reason that it needs."""
    if action.needs_reason and form.reason is None:
        raise UsageError("this needs a reason: it goes into the log")
    return action.do(queue.because(form.reason), form)


def ask(queue: CallerQueue, method: str, **given: Any) -> Any:
    """Call a method of the protocol, held to its scope and to the bounds of its arguments like a request of the API."""
    endpoint = ENDPOINTS[method]
    queue.caller.require(endpoint.route.scope)
    checked = {one.name: _checked(one, given[one.name]) for one in endpoint.arguments if one.name in given}
    if ACTOR in endpoint.signature.parameters:
        checked[ACTOR] = queue.caller.user
    return getattr(queue, method)(**checked)


def _checked(argument: Argument, value: Any) -> Any:
    try:
        return TypeAdapter[Any](argument.hint).validate_python(value)
    except ValidationError as error:
        raise UsageError(f"{argument.name}: {error.errors()[0]['msg']}") from None


def _each_job(method: str, done: str, **more: Read) -> Action:
    """A method for each of the chosen jobs; those that cannot do not keep the others from it."""

    def do(queue: CallerQueue, form: Form) -> Done:
        given = {name: read(form) for name, read in more.items()}
        jobs, refused = form.wholes("job"), list[NdifBatchError]()
        for job_id in jobs:
            if form.reason is None and queue.caller.may(Scope.ADMIN) and queue.job(job_id).user != queue.caller.user:
                raise UsageError(f"job {job_id} is not yours: this needs a reason, which goes into the log")
            try:
                ask(queue, method, job_id=job_id, **given)
            except ConflictError as error:
                refused.append(error)
        if len(refused) == len(jobs):
            raise refused[0]
        count = len(jobs) - len(refused)
        told = f"{f'job {jobs[0]}' if len(jobs) == 1 else f'{count} jobs'} {done}"
        return Done(told + (f"; {refused[0].message}" if refused else ""), partly=bool(refused))

    return Action(do, needs_reason=False)


def _one(method: str, told: str, **arguments: Read) -> Action:
    """A method once; what is told has the fields of the form by name."""

    def do(queue: CallerQueue, form: Form) -> Done:
        ask(queue, method, **{name: read(form) for name, read in arguments.items()})
        return Done(told.format_map({name: values[0] for name, values in form.fields.items() if values}))

    return Action(do)


def _evict(queue: CallerQueue, form: Form) -> Done:
    gone = ask(queue, "evict_model", name=form.text("model"))
    return Done(f"{form.text('model')}: {len(gone)} {'pilot drains' if len(gone) == 1 else 'pilots drain'}")


def _pause(queue: CallerQueue, form: Form) -> Done:
    ask(queue, "pause", model=form.text("model", "") or None)
    return Done(f"{form.text('model', 'everything')} is paused")


def _resume(queue: CallerQueue, form: Form) -> Done:
    ask(queue, "resume", model=form.text("model", "") or None)
    return Done(f"{form.text('model', 'everything')} goes on")


def _set_user(queue: CallerQueue, form: Form) -> Done:
    name = form.text("user")
    quotas = Quotas(*(form.whole_or_none(one) for one in ("pending_tasks", "running_shards", "archive_bytes")))
    before = queue.user(name)
    changes = {"shares": form.number("shares"), "quotas": quotas, "role": form.text("role")}
    changed = {what: value for what, value in changes.items() if value != getattr(before, what)}
    for what, value in changed.items():
        ask(queue, f"set_{what}", name=name, **{what: value})
    return Done(f"{' and '.join(changed) or 'nothing'} of {name} changed")


def _create_token(queue: CallerQueue, form: Form) -> Done:
    days = form.number("days")
    made = ask(queue, "create_token", user=form.text("user"), name=form.text("name", ""), expires_days=days)
    return Done(f"token {made.record.id} of {made.record.user} is made", secret=made.text)


def _revoke_token(queue: CallerQueue, form: Form) -> Done:
    found = ask(queue, "revoke_token", token_id=form.whole("token"))
    return Done(f"token {found.id} of {found.user} is revoked")


def _set_half_life(queue: CallerQueue, form: Form) -> Done:
    hours = form.number("half_life_hours")
    if not 0 < hours < float("inf"):
        raise UsageError("a half-life is a positive number of hours")
    ask(queue, "set_settings", changes={HALF_LIFE: hours})
    return Done(f"a GPU-second counts half after {hours:g} h")


def _text(field: str) -> Read:
    return lambda form: form.text(field)


def _whole(field: str) -> Read:
    return lambda form: form.whole(field)


ACTIONS: Mapping[str, Action] = {
    "jobs/hold": _each_job("hold", "on hold"),
    "jobs/release": _each_job("release", "released"),
    "jobs/retry": _each_job("retry", "tried again"),
    "jobs/cancel": _each_job("cancel", "cancelled"),
    "jobs/priority": _each_job("set_priority", "given a priority", priority=_whole("priority")),
    "jobs/remove-results": _each_job("remove_results", "without results from now on"),
    "models/add": _one(
        "add_model",
        "model {name} is ready",
        source=_text("source"),
        name=_text("name"),
        dtype=_text("dtype"),
        revision=lambda form: form.text("revision", "") or None,
    ),
    "models/load": _one("load_model", "{model} is loaded as soon as there is room", name=_text("model")),
    "models/pin": _one("pin_model", "{pilots} pilots of {model} stay", name=_text("model"), pilots=_whole("pilots")),
    "models/evict": Action(_evict),
    "models/remove": _one("remove_model", "{model} is removed", name=_text("model")),
    "pause": Action(_pause),
    "resume": Action(_resume),
    "pilots/drain": _one("drain_pilot", "pilot {pilot} drains", name=_text("pilot")),
    "pilots/kill": _one("kill_pilot", "pilot {pilot} is killed", name=_text("pilot")),
    "workers/drain": _one("drain_worker", "worker {worker} drains", worker_id=_whole("worker")),
    "users/create": _one("create_user", "{name} is a {role} now", name=_text("name"), role=_text("role")),
    "users/set": Action(_set_user),
    "tokens/create": Action(_create_token),
    "tokens/revoke": Action(_revoke_token, needs_reason=False),
    "settings/half-life": Action(_set_half_life),
}
"""The actions by the path that does them."""
