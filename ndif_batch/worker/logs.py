"""Structured logs on stderr: coloured lines in a terminal, else one JSON object a line."""

from __future__ import annotations

import sys

import structlog


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
        logger_factory=lambda *args: structlog.WriteLogger(sys.stderr),
    )
