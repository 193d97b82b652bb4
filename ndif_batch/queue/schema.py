"""Brings a database to the schema of :mod:`ndif_batch.queue.tables`, and refuses one that is not there."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ndif_batch.errors import UnavailableError
from ndif_batch.queue.database import Database, parse, sqlite_file
from ndif_batch.queue.tables import REVISION

UPGRADE = "run `ndif-batch db upgrade`"


def upgrade(url: str) -> str:
    """Create or upgrade the schema, keeping what is stored; the revision it is at afterwards."""
    from alembic import command
    from alembic.config import Config

    file = sqlite_file(parse(url))
    if file is not None:
        _make_folder(file.parent)
    config = Config(attributes={})
    config.set_main_option("script_location", str(scripts()))
    database = Database(url)
    try:
        with database.write() as tx:
            config.attributes["connection"] = tx.connection
            command.upgrade(config, "head")
    finally:
        database.close()
    return REVISION


def current(url: str) -> str | None:
    """The revision a database is at; None if it has no schema or does not exist yet."""
    file = sqlite_file(parse(url))
    if file is not None and not file.exists():
        return None
    database = Database(url)
    try:
        with database.read() as tx:
            return _revision(tx.connection)
    finally:
        database.close()


def head() -> str:
    """The revision that this version of the package works with."""
    return REVISION


def require(url: str) -> None:
    """``UnavailableError`` that says what to do unless the database is at :func:`head`."""
    where = parse(url).render_as_string(hide_password=True)
    revision = current(url)
    if revision is None:
        raise UnavailableError(f"there is no queue at {where}", hint=UPGRADE)
    if revision > REVISION:
        raise UnavailableError(
            f"the queue at {where} is at schema {revision}, newer than {REVISION} of this version",
            hint="upgrade ndif-batch",
        )
    if revision < REVISION:
        raise UnavailableError(f"the queue at {where} is at schema {revision}, not {REVISION}", hint=UPGRADE)


def scripts() -> Path:
    """The migration scripts: inside the package when it is installed, beside it in a checkout."""
    packed = Path(__file__).with_name("migrations")
    return packed if packed.is_dir() else Path(__file__).parents[2] / "migrations"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot create {folder}: {error.strerror}") from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
