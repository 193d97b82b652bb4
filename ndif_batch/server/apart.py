"""What needs a model's weights, done in a process of its own that ends with it: the server stays small and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

from pydantic import TypeAdapter

from ndif_batch.client import Client
from ndif_batch.config import Settings, load_settings
from ndif_batch.errors import BusyError, NdifBatchError, UnavailableError
from ndif_batch.queue import wire

ADD_MODEL, RECOMPUTE = "add_model", "recompute"
RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Apart:
    """One call of a name at a time; who comes meanwhile is told to come again (``BusyError``)."""

    busy: Mapping[str, Lock] = field(default_factory=lambda: {name: Lock() for name in CALLS})

    def call(self, what: str, settings: Settings, /, **arguments: Any) -> Any:
        """The JSON that the call ``what`` of :data:`CALLS` gives, or the error that it raises."""
        if not self.busy[what].acquire(blocking=False):
            raise BusyError("the server does this for somebody else now", retry_after=RETRY_SECONDS)
        try:
            return _call(what, settings, arguments)
        finally:
            self.busy[what].release()


def _call(what: str, settings: Settings, arguments: Mapping[str, Any]) -> Any:
    command = [sys.executable, "-m", "ndif_batch.server.apart"]
    environment = os.environ | settings.environment()
    pipe, reply = subprocess.PIPE, b""
    with suppress(BrokenPipeError), subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"call": what, **arguments}).encode() + b"\n")
        process.stdin.flush()  # and stays open: when this end is gone, the other ends
        reply = process.stdout.read()
    if not reply:
        raise UnavailableError(f"the process that was to {what} has died", hint="the server's log may say why")
    told = json.loads(reply)
    if "error" in told:
        problem = wire.Problem.model_validate(told["error"])
        raise wire.raised(problem.code, problem.message, problem.hint, problem.details)
    return told["answer"]


def _add_model(client: Client, *, source: str, name: str, dtype: str, revision: str | None) -> None:
    client.add_model(source, name, dtype=dtype, revision=revision)


def _recompute(client: Client, *, job_id: int, count: int, seed: int) -> dict[str, Any]:
    return client.recompute(job_id, count, seed=seed).to_json()


CALLS: Mapping[str, Callable[..., Any]] = {ADD_MODEL: _add_model, RECOMPUTE: _recompute}


def main() -> None:
    """Carry out the call on standard input, and write its answer, alone, to what was standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    Thread(target=_end_with_asker, daemon=True).start()
    name = request.pop("call")
    try:
        with Client(load_settings()) as client:
            answer = CALLS[name](client, **request)
        reply = TypeAdapter(dict[str, Any]).dump_json({"answer": answer})
    except NdifBatchError as error:
        reply = wire.error_to_json(error)
    answers.write(reply)
    answers.close()


def _end_with_asker() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
