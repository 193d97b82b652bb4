"""The page of users and tokens: shares, quotas, what each runs and has used, and what opens the server to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ndif_batch.queue.access import Scope
from ndif_batch.queue.cluster import Cost, Role, UserRecord
from ndif_batch.server.dashboard.overview import by_user
from ndif_batch.server.dashboard.visit import Visit

DAYS = 7


@dataclass(frozen=True, slots=True)
class UserLine:
    """A user, and what they have now."""

    user: UserRecord
    running: int
    used: Cost
    bytes: int


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    now, running = queue.queue.now(), queue.running_shards()
    used = dict(by_user(queue.usage_of(since=now - timedelta(days=DAYS))))
    sizes = {one.user: one.bytes for one in queue.archive_figures()}
    tokens = queue.tokens()
    good = [one for one in tokens if one.revoked_at is None and (one.expires_at is None or one.expires_at > now)]
    return {
        "now": now,
        "lines": [
            UserLine(user, running.get(user.name, 0), used.get(user.name, Cost()), sizes.get(user.name, 0))
            for user in queue.users()
        ],
        "tokens": [one for one in reversed(good) if Scope.LOGIN not in one.scopes],
        "spent": len(tokens) - len(good),
        "roles": [role.value for role in Role],
        "names": [user.name for user in queue.users()],
        "days": DAYS,
    }
