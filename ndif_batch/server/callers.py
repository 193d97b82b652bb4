"""Who asks, as the gate has found out, and what they may reach."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.requests import Request

from ndif_batch.queue.access import Caller, Scope
from ndif_batch.queue.routes import LONGEST_REASON, REASON
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.gate import CALLER


def caller_queue(request: Request, scope: Scope) -> CallerQueue:
    """The queue as the caller may see it; ``NotAllowedError`` unless their token opens ``scope``."""
    caller: Caller = getattr(request.state, CALLER)
    caller.require(scope)
    state = request.app.state
    found = CallerQueue(caller, state.queue, state.settings, state.apart)
    return found.because(unquote(request.headers.get(REASON, "")).strip()[:LONGEST_REASON] or None)
