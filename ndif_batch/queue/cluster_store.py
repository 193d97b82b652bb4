"""The queue as the scheduler and administrators see it: pilots, users, settings; one method a transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from datetime import datetime
from typing import Any, Self

from ndif_batch.queue import backlog, controls, keys, pilots, reports, summary, tokens, users
from ndif_batch.queue.access import Caller, NewToken, Scope, TokenRecord
from ndif_batch.queue.cluster import (
    LeaderRecord,
    ModelBacklog,
    PilotRecord,
    PilotState,
    Quotas,
    Role,
    UsageRecord,
    UserRecord,
)
from ndif_batch.queue.database import Database
from ndif_batch.queue.figures import ArchiveFigures, EventFilter, Held, JobFigures, JobFilter, Pulse
from ndif_batch.queue.keys import Claim
from ndif_batch.queue.records import EventRecord, JobRecord, Json, WorkerRecord
from ndif_batch.queue.telemetry import Measured
from ndif_batch.queue.wishes import load_name, pause_name


class ClusterQueue:
    """Pilots, who schedules them, what waits for them, and whose turn it is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def because(self, why: str | None) -> Self:
        """The same queue, whose events tell why they happened: what who acts gives as reason."""
        other = copy(self)
        other._database = self._database.because(why)
        return other

    @property
    def why(self) -> str | None:
        """The reason that events tell."""
        return self._database.why

    def now(self) -> datetime:
        """The time by which everything is judged: the database's, whatever the clock of this host says."""
        with self._database.read() as tx:
            return tx.now

    def acquire_leader(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease ``name`` for so long; False while another holder has it."""
        with self._database.write() as tx:
            return pilots.lead(tx, name, holder, seconds)

    def leader(self, name: str) -> LeaderRecord | None:
        """Who has the lease ``name`` now; None if nobody has."""
        with self._database.read() as tx:
            return pilots.leader_of(tx, name)

    def report(self, source: str, measured: Measured) -> None:
        """What a scheduler, which holds no model, has measured since it began."""
        with self._database.write() as tx:
            reports.put(tx, source, None, measured)

    def measured(self) -> dict[str | None, Measured]:
        """What workers have measured, by model, and schedulers, under None."""
        with self._database.read() as tx:
            return reports.by_model(tx)

    def add_pilot(self, name: str, model: str, launcher: str, resources: Json, *, actor: str) -> PilotRecord:
        """Write down a pilot before it is started; ``ConflictError`` if its name was used before."""
        with self._database.write() as tx:
            return pilots.add(tx, name, model, launcher, resources, actor)

    def pilots(self, *, active: bool = True, limit: int | None = None, after: int = 0) -> list[PilotRecord]:
        """Those that have not ended, oldest first; all there ever were unless ``active``. ``after`` is an id."""
        with self._database.read() as tx:
            return pilots.every(tx, active=active, limit=limit, after=after)

    def newest_pilots(
        self, models: Collection[str] = (), ended: int = 1, limit: int | None = None, after: int = 0
    ) -> list[PilotRecord]:
        """Those that have not ended, and of each of ``models`` the newest ``ended`` that have; oldest first."""
        with self._database.read() as tx:
            return pilots.newest(tx, models, ended, limit, after)

    def pilots_named(self, names: Collection[str]) -> list[PilotRecord]:
        """Those of these names, whether they have ended or not."""
        with self._database.read() as tx:
            return pilots.named(tx, names)

    def update_pilot(
        self,
        pilot_id: int,
        expected: PilotState,
        state: PilotState,
        *,
        external_id: str | None = None,
        reason: str | None = None,
        actor: str,
    ) -> bool:
        """Move a pilot that is still ``expected`` to ``state``, which may be the same; False if it is elsewhere."""
        with self._database.write() as tx:
            return pilots.change(tx, pilot_id, expected, state, external_id=external_id, reason=reason, actor=actor)

    def backlog(self) -> dict[str, ModelBacklog]:
        """What waits for each model that something waits for."""
        with self._database.read() as tx:
            return backlog.of_models(tx)

    def users(self, limit: int | None = None, after: str = "") -> list[UserRecord]:
        """All users by name; one appears with their first job or change. ``after`` is the name to go on from."""
        with self._database.read() as tx:
            return users.every(tx, limit, after)

    def user(self, name: str) -> UserRecord:
        """One user; ``NotFoundError`` if there is none."""
        with self._database.read() as tx:
            return users.get(tx, name)

    def create_user(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """A new user; ``ConflictError`` if there is one of that name, ``UsageError`` for what cannot be a name."""
        with self._database.write() as tx:
            users.create(tx, name, role, actor)
            return users.get(tx, name)

    def create_token(
        self,
        user: str,
        name: str = "",
        scopes: Iterable[Scope] | None = None,
        expires_days: float | None = None,
        *,
        actor: str,
    ) -> NewToken:
        """A token for a user, with all scopes of their role unless told; errors: see :func:`tokens.create`."""
        with self._database.write() as tx:
            return tokens.create(tx, user, name, scopes, expires_days, actor)

    def create_login(self, scopes: Iterable[Scope] | None = None, *, actor: str) -> NewToken:
        """A code for one login of ``actor`` at the dashboard, to do there what ``scopes`` open, all unless told."""
        with self._database.write() as tx:
            return tokens.create_code(tx, actor, scopes)

    def login(self, code: str) -> NewToken:
        """The session for a code, once; ``NotAuthenticatedError`` for a code that is none, spent or too old."""
        with self._database.write() as tx:
            return tokens.exchange(tx, code)

    def tokens(self, user: str | None = None, limit: int | None = None, after: int = 0) -> list[TokenRecord]:
        """All tokens, of one user if given, oldest first; ``after`` is the id to go on from."""
        with self._database.read() as tx:
            return tokens.every(tx, user, limit, after)

    def token(self, token_id: int) -> TokenRecord:
        """One token; ``NotFoundError`` if there is none."""
        with self._database.read() as tx:
            return tokens.get(tx, token_id)

    def revoke_token(self, token_id: int, *, actor: str) -> TokenRecord:
        """Let a token open nothing any more; one that is revoked stays so."""
        with self._database.write() as tx:
            tokens.revoke(tx, tokens.get(tx, token_id), actor)
            return tokens.get(tx, token_id)

    def authenticate(self, text: str) -> Caller:
        """Who calls with this token; ``NotAuthenticatedError`` unless it is one, not expired and not revoked."""
        with self._database.read() as tx:
            return tokens.authenticate(tx, text)

    def claim_key(self, caller: str, key: str, fingerprint: str) -> Claim:
        """The request of this ``fingerprint`` under a caller's key; errors: see :func:`keys.claim`."""
        with self._database.write() as tx:
            return keys.claim(tx, caller, key, fingerprint)

    def keep_answer(self, claimed: Claim, answer: str | None) -> None:
        """A key's request was carried out; keep what it gave, as JSON, for a day."""
        with self._database.write() as tx:
            keys.keep(tx, claimed, answer)

    def forget_key(self, claimed: Claim) -> None:
        """A key's request was not carried out: the key is free."""
        with self._database.write() as tx:
            keys.forget(tx, claimed)

    def running_shards(self) -> dict[str, int]:
        """How many shards of each user are leased; those of whom none is are left out."""
        with self._database.read() as tx:
            return users.running_shards(tx)

    def set_shares(self, name: str, shares: float, *, actor: str) -> UserRecord:
        """How much of the cluster is the user's when all want it; ``UsageError`` unless positive."""
        with self._database.write() as tx:
            users.set_shares(tx, name, shares, actor)
            return users.get(tx, name)

    def set_quotas(self, name: str, quotas: Quotas, *, actor: str) -> UserRecord:
        """The most that the user may have at once; ``UsageError`` for a negative number."""
        with self._database.write() as tx:
            users.set_quotas(tx, name, quotas, actor)
            return users.get(tx, name)

    def set_role(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """What the user may do from now on, with the tokens that they have already, too."""
        with self._database.write() as tx:
            users.set_role(tx, name, role, actor)
            return users.get(tx, name)

    def usage_of(
        self, name: str | None = None, since: datetime | None = None, limit: int | None = None, after: str = ""
    ) -> list[UsageRecord]:
        """What one user, or everybody, has used hour by hour, oldest first; of hour ``since`` users ``after`` one."""
        with self._database.read() as tx:
            return users.usage_of(tx, name, since, limit, after)

    def pulse(self) -> Pulse:
        """What changes whenever something does that a page shows."""
        with self._database.read() as tx:
            return summary.pulse(tx)

    def job_figures(self, user: str | None = None) -> list[JobFigures]:
        """The jobs of everybody, or of one user, by model and state."""
        with self._database.read() as tx:
            return summary.job_figures(tx, user)

    def archive_figures(self, user: str | None = None) -> list[ArchiveFigures]:
        """Whose results take up how much, the most first."""
        with self._database.read() as tx:
            return summary.archive_figures(tx, user)

    def largest_archives(self, user: str | None = None, limit: int = 50) -> list[JobRecord]:
        """The jobs whose results take up most, of everybody or of one user."""
        with self._database.read() as tx:
            return summary.largest_archives(tx, user, limit)

    def find_jobs(self, wanted: JobFilter, limit: int = 100, before: int | None = None) -> list[JobRecord]:
        """Jobs, newest first, as a filter wants them; ``before`` is the id to go on from."""
        with self._database.read() as tx:
            return summary.jobs(tx, wanted, limit, before)

    def live_workers(self) -> list[WorkerRecord]:
        """Workers that are alive, and those that ended in the last hour; newest first."""
        with self._database.read() as tx:
            return summary.live_workers(tx)

    def held(self) -> dict[int, Held]:
        """What each worker that holds shards has."""
        with self._database.read() as tx:
            return summary.held(tx)

    def find_events(self, wanted: EventFilter, limit: int = 100, before: int | None = None) -> list[EventRecord]:
        """Events, newest first, as a filter wants them; ``before`` is the id to go on from."""
        with self._database.read() as tx:
            return summary.told(tx, wanted, limit, before)

    def settings(self) -> dict[str, Any]:
        """All settings by name."""
        with self._database.read() as tx:
            return controls.every(tx)

    def set_settings(self, changes: Mapping[str, Any], *, actor: str) -> None:
        """Set each name to its value, any JSON."""
        with self._database.write() as tx:
            controls.put(tx, changes, actor)

    def pause(self, model: str | None = None, *, actor: str) -> None:
        """Lease nothing more, of one model if given; what is leased goes on."""
        self.set_settings({pause_name(model): True}, actor=actor)

    def resume(self, model: str | None = None, *, actor: str) -> None:
        """End a pause."""
        self.set_settings({pause_name(model): False}, actor=actor)

    def let_go(self, model: str, *, actor: str) -> None:
        """Keep and start no pilot of a model without work any more."""
        with self._database.write() as tx:
            controls.put(tx, controls.no_pilots(tx, model), actor)

    def loaded(self, models: Iterable[str], *, actor: str) -> None:
        """Pilots of these models have loaded them: what :meth:`load_model` asked for is done."""
        self.set_settings({load_name(model): False for model in models}, actor=actor)
