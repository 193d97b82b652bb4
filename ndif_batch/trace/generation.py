"""Generations as they are recorded: how tokens are chosen, and at which steps sites are touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ndif_batch.errors import ModelError
from ndif_batch.graph.nodes import SliceArg, Step
from ndif_batch.models.tokenizer import Tokenizer
from ndif_batch.trace.place import refusal

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Generates:
    """What ``lm.generate(…)`` says of its runs; ``None`` for what is not said."""

    count: int
    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    stop: Any = None

    def options(self, tokenizer: Tokenizer | None) -> dict[str, Any]:
        """The arguments of the ``steps`` operation, text of stop tokens as their ids."""
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        stops = [] if self.stop is None else list(self.stop) if isinstance(self.stop, list | tuple) else [self.stop]
        tokens = tuple([_token(stop, tokenizer) for stop in stops])
        return {name: value for name, value in given.items() if value is not None} | (
            {"stop": tokens} if tokens else {}
        )


def _token(stop: Any, tokenizer: Tokenizer | None) -> Any:
    if not isinstance(stop, str):
        return stop
    if tokenizer is None:
        raise ModelError(f"the stop token {stop!r} is text but the model has no tokenizer", hint="give token ids")
    return tokenizer.token(stop)


class Steps:
    """``t.iter``: ``with t.iter[1:]:`` touches sites at all these steps, ``for step in t.iter[1:4]:`` at one by one."""

    def __init__(self, recorder: Recorder, steps: int | slice | None = None) -> None:
        self._recorder = recorder
        self._steps = steps
        self._before: Step | None = None

    def __getitem__(self, steps: int | slice) -> Steps:
        return Steps(self._recorder, steps)

    def __enter__(self) -> None:
        if self._steps is None:
            raise refusal("which steps?", hint="with t.iter[:]: … for all of them")
        self._before = self._recorder.step
        own = self._steps
        self._recorder.step = SliceArg(own.start, own.stop, own.step) if isinstance(own, slice) else own

    def __exit__(self, *_: object) -> None:
        self._recorder.step = self._before

    def __iter__(self) -> Iterator[int]:
        count = self._recorder.count_of_steps
        own = slice(None) if self._steps is None else self._steps
        before = self._recorder.step
        try:
            for step in range(count)[own] if isinstance(own, slice) else (own,):
                self._recorder.step = step
                yield step
        finally:
            self._recorder.step = before
