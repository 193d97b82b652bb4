"""Copies a database that is in use into a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from ndif_batch.errors import ConflictError, UnavailableError, UsageError
from ndif_batch.queue import schema
from ndif_batch.queue.database import parse, sqlite_file

OURS_ALONE = 0o600


def backup(url: str, file: Path) -> None:
    """Write the database at ``url``, as it is at one moment, into the new ``file``, which only its owner may read.

    ``ConflictError`` if the file is there, ``UnavailableError`` if the database, or PostgreSQL's ``pg_dump``, is not.
    """
    schema.require(url)
    if file.exists():
        raise ConflictError(f"{file} is there already", hint="name a new file")
    parsed = parse(url)
    work = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        work.touch(OURS_ALONE, exist_ok=False)
        source = sqlite_file(parsed)
        if source is not None:
            _copy(source, work)
        else:
            _dump(parsed, work)
        os.link(work, file)
    except FileExistsError:
        raise ConflictError(f"{file} is there already", hint="name a new file") from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None
    finally:
        work.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as here:
        there.backup(here)


def _dump(url: URL, target: Path) -> None:
    program = shutil.which("pg_dump") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_dump")), None)
    if program is None:
        raise UnavailableError("pg_dump is not installed", hint="apt-get install postgresql-client")
    secret = {} if url.password is None else {"PGPASSWORD": url.password}
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    command = [program, "--format=custom", f"--file={target}", f"--dbname={address}"]
    done = subprocess.run(command, env=os.environ | secret, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"pg_dump: {done.stderr.strip().splitlines()[-1]}")
