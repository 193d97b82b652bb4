"""The option ``--watch N`` of listings: they are drawn again every N seconds until interrupted."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from functools import wraps
from io import StringIO
from threading import Event
from typing import Annotated, Any

import typer

from ndif_batch.cli.output import stdout

Watch = Annotated[
    float | None, typer.Option("--watch", metavar="N", min=0.1, help="Again every N seconds, until interrupted.")
]
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen(StringIO):
    """What is written to a terminal, before it is shown."""

    def isatty(self) -> bool:
        """As the terminal says, so that colours and widths are its own."""
        return True


def watched(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the option; without it nothing changes."""

    @wraps(verb)
    def again(*args: Any, watch: float | None = None, **named: Any) -> None:
        if watch is None:
            verb(*args, **named)
            return
        console, never = stdout(), Event()
        with console.screen() if console.is_terminal else nullcontext():
            while True:
                look(lambda: verb(*args, **named))
                never.wait(watch)

    shape = inspect.signature(verb, eval_str=True)
    option = inspect.Parameter("watch", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Watch)
    setattr(again, "__signature__", shape.replace(parameters=[*shape.parameters.values(), option]))  # noqa: B010
    again.__annotations__ = {**verb.__annotations__, "watch": Watch}
    return again


def look(verb: Callable[[], None]) -> None:
    """What a verb shows, in place of what a terminal showed before; its lines that the terminal has room for."""
    if not sys.stdout.isatty():
        verb()
        return
    screen = Screen()
    with redirect_stdout(screen), redirect_stderr(screen):
        verb()
    lines = screen.getvalue().splitlines()[: stdout().height - 1]
    sys.stdout.write(HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in lines) + REST_OF_SCREEN)
    sys.stdout.flush()
