"""Read before any process of a chaos run is born: what they all need, which then costs none of them anything."""

from __future__ import annotations

import gc
from importlib import import_module

LATE = ("alembic.command", "alembic.ext.checkconstraint_byname", "sqlalchemy.dialects.postgresql.psycopg", "sqlite3")
"""Modules that the product reads when it needs them."""

for name in ("tests.chaos.roles", "ndif_batch.archive", *LATE):
    import_module(name)
gc.collect()
gc.freeze()
