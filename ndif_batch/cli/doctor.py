"""The verb doctor: whether this machine and these settings can run jobs, and what to do if not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ndif_batch.cli.output import Format, Output, write_rows
from ndif_batch.errors import NdifBatchError
from ndif_batch.measures import size

if TYPE_CHECKING:
    from ndif_batch.config import Settings

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 2 * 2**30
NEEDED = ("torch", "transformers", "safetensors", "tokenizers", "sqlalchemy", "alembic", "zarr", "xarray", "pandas")
OPTIONAL = {"matplotlib": "plot", "pyarrow": "export"}
SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "cifs", "smb3", "beegfs", "gpfs", "fuse.sshfs", "9p", "afs", "ceph")
"""Where SQLite's locks and shared memory do not work between hosts, or at all."""


class Health(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``remedy`` says what to do unless all is well."""

    check: str
    health: Health
    detail: str
    remedy: str = ""


def doctor(output: Output = Format.TABLE) -> None:
    """Check Python, packages, database, archive, models and device; exit code 1 if something fails."""
    from ndif_batch.config import load_settings

    settings = load_settings()
    findings = [finding for check in CHECKS for finding in safely(check, settings)]
    rows = [{"check": f.check, "state": f.health.value, "detail": f.detail, "remedy": f.remedy} for f in findings]
    write_rows(rows, ("check", "state", "detail", "remedy"), output)
    if any(finding.health is Health.FAIL for finding in findings):
        raise typer.Exit(1)


def check_python(settings: Settings) -> Iterator[Finding]:
    """The interpreter's version."""
    fine = sys.version_info >= OLDEST_PYTHON
    yield Finding(
        "python", Health.OK if fine else Health.FAIL, platform.python_version(), "" if fine else "use 3.11 or later"
    )


def check_packages(settings: Settings) -> Iterator[Finding]:
    """Packages that are needed, and those that add something."""
    found = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    missing = [name for name in NEEDED if found[name] is None]
    if missing:
        yield Finding("packages", Health.FAIL, f"missing: {', '.join(missing)}", "pip install ndif-batch")
    else:
        yield Finding(
            "packages", Health.OK, ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "zarr"))
        )
    for name, extra in OPTIONAL.items():
        if found[name] is None:
            yield Finding("packages", Health.WARN, f"no {name}", f"pip install 'ndif-batch[{extra}]'")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether the queue can be reached and has the right schema, and lies where SQLite works."""
    from ndif_batch.config import without_password
    from ndif_batch.queue import schema

    schema.require(settings.database)
    yield Finding("database", Health.OK, f"{without_password(settings.database)}, schema {schema.head()}")
    if settings.database.startswith("sqlite"):
        kind = file_system(Path(settings.database.partition(":///")[2]))
        if kind in SHARED_FILE_SYSTEMS:
            yield Finding(
                "database",
                Health.FAIL,
                f"SQLite on {kind} loses locks between hosts",
                "set NDIF_BATCH_DATABASE_URL to a local disk or to PostgreSQL",
            )


def check_slurm(settings: Settings) -> Iterator[Finding]:
    """Whether pilots of such resources can be asked for, if Slurm is to start them."""
    from ndif_batch.launcher.slurm import command
    from ndif_batch.launcher.submission import check_resources

    if settings.cluster.launcher == "slurm":
        own = (model.resources for model in settings.cluster.models.values())
        for resources in (settings.cluster.resources, *own):
            check_resources(resources)
        command("squeue", "--noheader", "--me")
        yield Finding("slurm", Health.OK, f"{command('sbatch', '--version').strip()} answers")


def check_archive(settings: Settings) -> Iterator[Finding]:
    """Whether results can be written, and for how long."""
    yield from _writable("archive", settings, settings.archive, "NDIF_BATCH_ARCHIVE_DIR")


def check_model_cache(settings: Settings) -> Iterator[Finding]:
    """Whether models can be fetched."""
    yield from _writable("model cache", settings, settings.model_cache, "NDIF_BATCH_MODEL_CACHE")


def check_models(settings: Settings) -> Iterator[Finding]:
    """Whether every model of the queue is where it should be."""
    from ndif_batch.client import Client

    with Client(settings) as client:
        records = client.queue.models()
        for record in records:
            info = client.model_info(record.name)
            if not info.weights.is_dir():
                yield Finding(
                    "models", Health.FAIL, f"{record.name}: no {info.weights}", "add it again: ndif-batch model add"
                )
    if not records:
        yield Finding("models", Health.WARN, "none", "ndif-batch model add, or ndif-batch demo")
    else:
        yield Finding("models", Health.OK, ", ".join(record.name for record in records))


def check_device(settings: Settings) -> Iterator[Finding]:
    """On what a worker would compute."""
    from ndif_batch.engine.device import describe_device

    name, accelerated = describe_device()
    yield Finding(
        "device",
        Health.OK if accelerated else Health.WARN,
        name,
        "" if accelerated else "models run on the CPU: slowly",
    )


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_database,
    check_slurm,
    check_archive,
    check_model_cache,
    check_models,
    check_device,
)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds ``path``, by the kernel's list of mounts; empty if it is not known."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    target = os.path.realpath(path)
    found = ("", "")
    for _, point, kind, *_ in map(str.split, lines):
        place = point.encode().decode("unicode_escape")
        inside = target == place or target.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


def _writable(check: str, settings: Settings, folder: Path, variable: str) -> Iterator[Finding]:
    """Where others do the work, who submits it need not write."""
    from tempfile import TemporaryFile

    standing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with TemporaryFile(dir=standing) as file:
            file.write(bytes(2**16))
            file.flush()
    except OSError as error:
        if settings.database_url and standing == folder and os.access(folder, os.R_OK | os.X_OK):
            yield Finding(check, Health.WARN, f"{folder}, read only", "right for users; workers have to write there")
        else:
            yield Finding(check, Health.FAIL, f"{folder}: {error.strerror}", f"set {variable} to a directory of yours")
        return
    free = shutil.disk_usage(standing).free
    little = free < LITTLE_SPACE
    yield Finding(
        check,
        Health.WARN if little else Health.OK,
        f"{folder}, {size(free)} free",
        f"free some space, or set {variable}" if little else "",
    )


def safely(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """What a check found, or what it fell over."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check(settings)
    except NdifBatchError as error:
        yield Finding(name, Health.FAIL, error.message, error.hint or "")
    except Exception as error:  # noqa: BLE001 -- a broken check must not hide the others
        yield Finding(name, Health.FAIL, f"{type(error).__name__}: {error}", "reinstall the package")


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
