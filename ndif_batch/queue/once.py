"""A queue whose methods that POST are carried out once for a key, as the draft of ``Idempotency-Key`` has it.

draft-ietf-httpapi-idempotency-key-header: an equal request under the same key gets the first answer again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from ndif_batch.queue.access import NewToken
from ndif_batch.queue.http import ENDPOINTS
from ndif_batch.queue.keys import Claim
from ndif_batch.queue.routes import ACTOR, Endpoint, check_key
from ndif_batch.queue.store import Queue


class Once:
    """``target`` for a ``caller`` whose key it is; ``queue`` keeps the answers.

    An error is not kept: nothing was done, so that an equal request is carried out. Nor is a secret: whoever asks
    again gets the record of the token that was made, without its text.
    """

    def __init__(self, target: Any, queue: Queue, caller: str, key: str) -> None:
        self._target, self._queue, self._caller, self._key = target, queue, caller, check_key(key)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ENDPOINTS or ENDPOINTS[name].route.verb != "POST":
            raise AttributeError(f"no key goes with {name!r}")
        return partial(self._once, ENDPOINTS[name])

    def _once(self, endpoint: Endpoint, *args: Any, **named: Any) -> Any:
        bound = endpoint.signature.bind(*args, **named)
        bound.apply_defaults()
        claimed = self._queue.claim_key(self._caller, self._key, _fingerprint(endpoint, bound.arguments))
        if claimed.answer is not None:
            return endpoint.answer.validate_json(claimed.answer, strict=True)
        method = partial(getattr(self._target, endpoint.name), *args, **named)
        return method() if claimed.answered else self._carried_out(endpoint, claimed, method)

    def _carried_out(self, endpoint: Endpoint, claimed: Claim, method: Callable[[], Any]) -> Any:
        try:
            answer = method()
        except BaseException:
            self._queue.forget_key(claimed)
            raise
        kept = None if endpoint.route.again else endpoint.answer.dump_json(_without_secret(answer)).decode()
        self._queue.keep_answer(claimed, kept)
        return answer


def _fingerprint(endpoint: Endpoint, arguments: Mapping[str, Any]) -> str:
    """What two equal requests have in common, whoever acts and however they are written."""
    asked = {name: value for name, value in arguments.items() if name != ACTOR}
    return sha256(to_json([endpoint.name, asked])).hexdigest()


def _without_secret(answer: Any) -> Any:
    return replace(answer, text="") if isinstance(answer, NewToken) else answer
