"""A server process: its socket, its scheduler if it is to have one, and its end."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import structlog
import uvicorn

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.errors import ConflictError, NotAllowedError, UsageError
from ndif_batch.server.app import create_app
from ndif_batch.server.connections import protocol
from ndif_batch.worker.logs import configure_logs
from ndif_batch.worker.signals import on_signals

BACKLOG = 128
STOP_SECONDS = 20.0
IDLE_SECONDS = 30

ASKING = ("NDIF_BATCH_URL", "NDIF_BATCH_TOKEN")
"""Variables of who asks a server."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run(settings: Settings, listener: socket.socket, *, with_scheduler: bool = False) -> None:
    """Answer at ``listener`` until SIGTERM or SIGINT; requests that are being served then are finished."""
    configure_logs()
    own = settings.model_copy(update={"url": ""})
    with ExitStack() as stack:
        queue = stack.enter_context(LocalQueue.open(own.database))
        if with_scheduler:
            stack.enter_context(_scheduler(own))
        log.info("server.listens", at=where(listener))
        with on_signals(lambda number: None):  # uvicorn ends by them, and then raises them once more
            server(queue, own).run(sockets=[listener])
    log.info("server.stopped")


def server(queue: LocalQueue, settings: Settings) -> uvicorn.Server:
    """What answers requests about ``queue``."""
    running: list[uvicorn.Server] = []
    config = uvicorn.Config(
        create_app(queue, settings, lambda: any(one.should_exit for one in running)),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http=protocol(settings.server),
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(STOP_SECONDS),
        proxy_headers=False,
    )
    running.append(uvicorn.Server(config))
    return running[0]


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at ``path``, in a folder that is only this account's.

    ``NotAllowedError`` if others may enter the folder, ``ConflictError`` if somebody answers there already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_mode & 0o077 or path.parent.stat().st_uid != os.getuid():
        raise NotAllowedError(f"others may enter {path.parent}", hint=f"chmod 700 {path.parent}")
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX) as made:
        try:
            made.bind(str(path))
        except OSError as error:
            raise UsageError(f"cannot listen at {path}: {error}") from None
        path.chmod(0o600)
        made.listen(BACKLOG)
        try:
            yield made
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def listening_on(host: str, port: int) -> Iterator[socket.socket]:
    """A port of this host's loopback device; 0 takes a free one. ``UsageError`` for an address that others reach."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(f"{host} is not a loopback address", hint="127.0.0.1, and a tunnel for who is elsewhere")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
        except OSError as error:
            reason = f"cannot listen at {host}:{port}: {error.strerror}"
            raise ConflictError(reason, hint="--port 0 takes a free one") from None
        made.listen(BACKLOG)
        yield made


def where(listener: socket.socket) -> str:
    """The setting ``url`` for who asks here."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is gone."""
    if not path.is_socket():
        if path.exists():
            raise UsageError(f"{path} is there and is no socket")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
        else:
            raise ConflictError(f"a server answers at {path} already")


@contextmanager
def _scheduler(settings: Settings) -> Iterator[None]:
    """A scheduler in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "ndif_batch.cli.main", "scheduler", "run"]
    environment = {name: value for name, value in os.environ.items() if name not in ASKING}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment | settings.environment())
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
