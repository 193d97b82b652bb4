"""Starts the processes that share a model with this one, and is what they run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ndif_batch.engine.ranks import Ranks, Seat

END_SECONDS = 20.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def environments(size: int) -> list[dict[str, str]]:
    """torchrun's variables for each of ``size`` ranks of this host, which meet at a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    meeting["NCCL_SOCKET_IFNAME"] = "lo"
    sizes = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [{**meeting, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


@contextmanager
def beside(size: int, command: Sequence[str]) -> Iterator[Seat]:
    """Meanwhile this process is rank 0 of ``size``, and the others run ``command``.

    They outlive it by no more than the time that it takes to see that it is gone.
    """
    seats = environments(size)
    before = {name: os.environ.get(name) for name in seats[0]}
    others = [subprocess.Popen(command, env=os.environ | own, stdin=subprocess.DEVNULL) for own in seats[1:]]
    os.environ.update(seats[0])
    try:
        yield Seat(0, size)
    finally:
        _restore(before)
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(END_SECONDS)
            other.kill()
            other.wait()


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def follower(directory: Path) -> list[str]:
    """The command of a process that follows with the model entry in ``directory``."""
    return [sys.executable, "-m", __name__, str(directory)]


def main(directory: Path) -> None:
    """Be a rank that follows. Signals are for rank 0, which lets this one go in good order."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    from ndif_batch.engine.following import follow
    from ndif_batch.engine.model import Device, find_device, load
    from ndif_batch.models.info import ModelInfo

    seat = Seat.of(os.environ)
    assert seat is not None
    ranks = Ranks(seat, find_device(Device.AUTO))
    with ranks.watched():
        follow(load(ModelInfo.read(directory), ranks=ranks))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
