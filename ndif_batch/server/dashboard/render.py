"""Turns what a page shows into HTML, always escaped: the whole page, or for htmx the part of it that lives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ndif_batch.measures import age, duration, size
from ndif_batch.queue.routes import DASHBOARD

NOTHING = "\u2013"
STATIC = Path(__file__).with_name("static")


def count(number: float | None) -> str:
    """A whole number with its thousands apart."""
    return NOTHING if number is None else f"{number:,.0f}".replace(",", "\u202f")


def short(number: float | None) -> str:
    """A number of three digits and its unit: ``12.3k``."""
    if number is None:
        return NOTHING
    for unit, step in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= step:
            scaled = number / step
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.3g}{unit}"
    return f"{number:.3g}"


def percent(part: float, whole: float) -> str:
    """A part of a whole that is never 0 % when there is some, nor 100 % before it is all."""
    if not whole:
        return "0\u202f%"
    found = 100 * part / whole
    if 0 < found < 1 or 99 < found < 100:
        return "<1\u202f%" if found < 1 else ">99\u202f%"
    return f"{found:.0f}\u202f%"


def moment(at: datetime | None) -> str:
    """A time to the second, as the server counts it."""
    return NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def words(value: Any) -> str:
    """A value of JSON as people write it."""
    if isinstance(value, list):
        return " ".join(map(words, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(__package__ or __name__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "age": age,
        "count": count,
        "duration": duration,
        "json": lambda value: json.dumps(value, default=str),
        "moment": moment,
        "short": short,
        "size": size,
        "words": words,
    }
    made.globals |= {"percent": percent, "root": DASHBOARD}
    return made


environment = _environment()


def html(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """A whole page, or what of it changes if htmx asks."""
    alone = "hx-request" in request.headers
    shown = {"layout": "fragment.html" if alone else "base.html", "here": _here(request), **values}
    return HTMLResponse(environment.get_template(template).render(shown), status, {"Vary": "HX-Request"})


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
