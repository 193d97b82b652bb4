"""What pages showed a moment ago, for all who ask for the same: a hundred open tabs cost what one does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import TypeAlias

from starlette.responses import Response

from ndif_batch.queue.access import Scope
from ndif_batch.server.dashboard.visit import Visit

SECONDS = 1.0
"""Nothing older is shown, whoever changed something meanwhile."""

MOST = 256

Key: TypeAlias = tuple[str, str, frozenset[Scope], int]


@dataclass
class Shown:
    """The live parts of pages, by who asks and what their token opens."""

    _parts: OrderedDict[Key, tuple[float, Response]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, visit: Visit, version: int, show: Callable[[], Response]) -> Response:
        """What ``show`` gives, or gave to an equal visitor since the queue's ``version`` changed; whole pages anew."""
        if "hx-request" not in visit.request.headers:
            return show()
        me = visit.me
        key = (str(visit.request.url), me.user, me.scopes, version)
        with self._lock:
            found = self._parts.get(key)
        if found is not None and monotonic() - found[0] < SECONDS:
            return found[1]
        began, made = monotonic(), show()
        with self._lock:
            self._parts[key] = (began, made)
            while len(self._parts) > MOST:
                self._parts.popitem(last=False)
        return made

    def forget(self) -> None:
        """Something was changed from here: show it anew."""
        with self._lock:
            self._parts.clear()
