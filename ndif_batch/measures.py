"""Times and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def age(since: datetime | None, now: datetime | None = None) -> str:
    """Time since ``since`` in its largest unit: ``45s``, ``12m``, ``3h``, ``2d``."""
    if since is None:
        return ""
    now = now or datetime.now(UTC)
    return duration((now - (since if since.tzinfo else since.replace(tzinfo=UTC))).total_seconds())


def duration(seconds: float) -> str:
    """So many seconds in their largest unit; what is negative is none."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def size(count: int) -> str:
    """Bytes in binary units: ``1.5 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
