"""What is done from the pages: each action is a method of the queue's protocol, by who is logged in, for a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ndif_batch.errors import ConflictError, NdifBatchError, UsageError
from ndif_batch.queue.access import Scope
from ndif_batch.queue.cluster import Quotas, Role
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.dashboard.form import Form


@dataclass(frozen=True, slots=True)
class Done:
    """What is told of an action: a line, whether only a part of it happened, and a secret that is shown this once."""

    told: str
    partly: bool = False
    secret: str | None = None


Do: TypeAlias = Callable[[CallerQueue, Form, str], Done]
"""An action by who is named last."""


@dataclass(frozen=True, slots=True)
class Action:
    """An action, the scope that it needs, and whether nobody may do it without saying why."""

    do: Do
    scope: Scope = Scope.ADMIN
    needs_reason: bool = True


def carry_out(action: Action, queue: CallerQueue, form: Form) -> Done:
    """Do it; ``NotAllowedError`` for who may not, ``UsageError`` without the reason that it needs."""
    queue.caller.require(action.scope)
    if action.needs_reason and form.reason is None:
        raise UsageError("this needs a reason: it goes into the log")
    return action.do(queue.because(form.reason), form, queue.caller.user)


def _each_job(method: str, done: str, **more: Callable[[Form], Any]) -> Action:
    def do(queue: CallerQueue, form: Form, actor: str) -> Done:
        given = {name: read(form) for name, read in more.items()}
        jobs, refused = form.wholes("job"), list[NdifBatchError]()
        for job_id in jobs:
            if queue.job(job_id).user != actor and queue.caller.may(Scope.ADMIN) and form.reason is None:
                raise UsageError(f"job {job_id} is not yours: this needs a reason, which goes into the log")
            try:
                getattr(queue, method)(job_id, actor=actor, **given)
            except ConflictError as error:
                refused.append(error)
        if len(refused) == len(jobs):
            raise refused[0]
        count = len(jobs) - len(refused)
        told = f"{f'job {jobs[0]}' if len(jobs) == 1 else f'{count} jobs'} {done}"
        return Done(told + (f"; {refused[0].message}" if refused else ""), partly=bool(refused))

    return Action(do, Scope.WRITE, needs_reason=False)


def _model(method: str, done: str, **more: Callable[[Form], Any]) -> Action:
    def do(queue: CallerQueue, form: Form, actor: str) -> Done:
        given = {name: read(form) for name, read in more.items()}
        name = form.text("model")
        getattr(queue, method)(name, actor=actor, **given)
        return Done(f"{name} {done}")

    return Action(do)


def _evict(queue: CallerQueue, form: Form, actor: str) -> Done:
    gone = queue.evict_model(form.text("model"))
    return Done(f"{form.text('model')}: {len(gone)} {'pilot drains' if len(gone) == 1 else 'pilots drain'}")


def _add_model(queue: CallerQueue, form: Form, actor: str) -> Done:
    made = queue.add_model(
        form.text("source"), form.text("name"), form.text("dtype"), form.text("revision", "") or None
    )
    return Done(f"model {made.name} is ready")


def _pause(queue: CallerQueue, form: Form, actor: str) -> Done:
    queue.pause(form.text("model", "") or None, actor=actor)
    return Done(f"{form.text('model', 'everything')} is paused")


def _resume(queue: CallerQueue, form: Form, actor: str) -> Done:
    queue.resume(form.text("model", "") or None, actor=actor)
    return Done(f"{form.text('model', 'everything')} goes on")


def _drain(queue: CallerQueue, form: Form, actor: str) -> Done:
    queue.drain_pilot(form.text("pilot"))
    return Done(f"pilot {form.text('pilot')} drains")


def _kill(queue: CallerQueue, form: Form, actor: str) -> Done:
    queue.kill_pilot(form.text("pilot"))
    return Done(f"pilot {form.text('pilot')} is killed")


def _drain_worker(queue: CallerQueue, form: Form, actor: str) -> Done:
    queue.drain_worker(form.whole("worker"), actor)
    return Done(f"worker {form.whole('worker')} drains")


def _create_user(queue: CallerQueue, form: Form, actor: str) -> Done:
    made = queue.create_user(form.text("name"), _role(form), actor=actor)
    return Done(f"{made.name} is a {made.role} now")


def _set_user(queue: CallerQueue, form: Form, actor: str) -> Done:
    name = form.text("user")
    quotas = Quotas(*(form.whole_or_none(one) for one in ("pending_tasks", "running_shards", "archive_bytes")))
    shares, role, before = form.number("shares"), _role(form), queue.user(name)
    if shares != before.shares:
        queue.set_shares(name, shares, actor=actor)
    if quotas != before.quotas:
        queue.set_quotas(name, quotas, actor=actor)
    if role != before.role:
        queue.set_role(name, role, actor=actor)
    return Done(f"{name} is changed")


def _create_token(queue: CallerQueue, form: Form, actor: str) -> Done:
    made = queue.create_token(form.text("user"), form.text("name", ""), None, form.number("days"), actor=actor)
    return Done(f"token {made.record.id} of {made.record.user} is made", secret=made.text)


def _revoke_token(queue: CallerQueue, form: Form, actor: str) -> Done:
    found = queue.revoke_token(form.whole("token"), actor=actor)
    return Done(f"token {found.id} of {found.user} is revoked")


def _set_half_life(queue: CallerQueue, form: Form, actor: str) -> Done:
    hours = form.number("half_life_hours")
    if not 0 < hours < float("inf"):
        raise UsageError("a half-life is a positive number of hours")
    queue.set_settings({"half_life_hours": hours}, actor=actor)
    return Done(f"a GPU-second counts half after {hours:g} h")


def _role(form: Form) -> Role:
    try:
        return Role(form.text("role"))
    except ValueError:
        raise UsageError(f"there is no role {form.text('role')!r}", hint=", ".join(Role)) from None


ACTIONS: Mapping[str, Action] = {
    "jobs/hold": _each_job("hold", "on hold"),
    "jobs/release": _each_job("release", "released"),
    "jobs/retry": _each_job("retry", "tried again"),
    "jobs/cancel": _each_job("cancel", "cancelled"),
    "jobs/priority": _each_job("set_priority", "given a priority", priority=lambda form: form.whole("priority")),
    "jobs/remove-results": _each_job("remove_results", "without results from now on"),
    "models/add": Action(_add_model),
    "models/load": _model("load_model", "is loaded as soon as there is room"),
    "models/pin": _model("pin_model", "is pinned as asked", pilots=lambda form: form.whole("pilots")),
    "models/evict": Action(_evict),
    "models/remove": _model("remove_model", "is removed"),
    "pause": Action(_pause),
    "resume": Action(_resume),
    "pilots/drain": Action(_drain),
    "pilots/kill": Action(_kill),
    "workers/drain": Action(_drain_worker),
    "users/create": Action(_create_user),
    "users/set": Action(_set_user),
    "tokens/create": Action(_create_token),
    "tokens/revoke": Action(_revoke_token, Scope.WRITE, needs_reason=False),
    "settings/half-life": Action(_set_half_life),
}
"""The actions by the path that does them."""
