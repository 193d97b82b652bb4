"""Alembic's entry point: runs the scripts on the caller's connection, else on the database of the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from ndif_batch.config import load_settings
from ndif_batch.queue.database import Database
from ndif_batch.queue.tables import metadata


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with Database(load_settings().database).write() as transaction:
        migrate(transaction.connection)
