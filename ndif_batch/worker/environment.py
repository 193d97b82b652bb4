"""What of its environment a worker does without while it runs what users have sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SECRETS = ("NDIF_BATCH_TOKEN", "NDIF_BATCH_DATABASE_URL")
"""Variables that open something; a worker has read them when it begins."""


@contextmanager
def without_secrets() -> Iterator[None]:
    """Neither this process nor those that it starts find them meanwhile."""
    before = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
