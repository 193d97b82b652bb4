"""Structured logs on stderr: coloured lines in a terminal, else one JSON object a line."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class Spared:
    """A stream on a disk that may be full: what it cannot write is not told, and stops nobody."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write it, if that can be."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """What could not be written waits for the next time."""
        with suppress(OSError):
            self._stream.flush()


def configure_logs() -> None:
    """Set up structlog, unless the embedding program has done so."""
    if structlog.is_configured():
        return
    terminal = sys.stderr.isatty()
    lines = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = lines if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(() if terminal else (structlog.processors.format_exc_info,)),
            renderer,
        ],
        logger_factory=lambda *args: structlog.WriteLogger(cast("TextIO", Spared(sys.stderr))),
    )
