"""Turns every exception into one readable error, a hint, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

import typer

from ndif_batch.errors import (
    NdifBatchError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
    UsageError,
)

INTERRUPTED = 130
BROKEN_PIPE = 141
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong; the exit code of the process."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _discard(sys.stdout)
        return BROKEN_PIPE
    if isinstance(error, typer.TyperException):
        say_error(_plainly(error.format_message()), _help_hint(error))
        return error.exit_code
    known = error if isinstance(error, NdifBatchError) else _as_known(error)
    if known is None:
        say_error(f"unexpected {type(error).__name__}: {error}", f"the traceback is in {_write_traceback(error)}")
        return NdifBatchError.exit_code
    say_error(known.message, known.hint)
    return known.exit_code


def say_error(message: str, hint: str | None = None) -> None:
    """One red line on stderr, and a hint below it."""
    from rich.text import Text

    from ndif_batch.cli.output import printable, stderr

    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), (printable(message), "red")), soft_wrap=True)
    if hint:
        console.print(Text.assemble(("hint: ", "bold"), printable(hint)), soft_wrap=True)


def _as_known(error: BaseException) -> NdifBatchError | None:
    """An operating system's refusal as one of this package's errors."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if error.errno in NO_SPACE:
        return UnavailableError(message, hint="free some space, or set NDIF_BATCH_DATA_DIR to a larger disk")
    if isinstance(error, PermissionError):
        return NotAllowedError(message)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(message)
    return UsageError(message) if isinstance(error, IsADirectoryError | FileExistsError) else None


def _plainly(message: str) -> str:
    """Typer's words for a wrong number, in ours."""
    message = message.replace(
        "Input should be a valid integer, unable to parse string as an integer", "must be a whole number"
    )
    return message.replace("Input should be a valid number, unable to parse string as a number", "must be a number")


def _help_hint(error: typer.TyperException) -> str | None:
    context: typer.Context | None = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else None


def _write_traceback(error: BaseException) -> str:
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ndif-batch-", suffix=".traceback.txt", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        traceback.print_exception(error)
        return "the lines above"
    return file.name


def _discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain while it ends."""
    if stream is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
