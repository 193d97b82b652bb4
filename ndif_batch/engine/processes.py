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

import torch

from ndif_batch.engine.following import dismiss, follow, lead
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import Device, find_device, load
from ndif_batch.engine.ranks import Ranks, Seat
from ndif_batch.errors import UsageError
from ndif_batch.models.info import ModelInfo

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
    patience = 0.0
    try:
        yield Seat(0, size)
        patience = END_SECONDS
    finally:
        _restore(before)
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(patience)
            other.kill()
            other.wait()


@contextmanager
def split_model(info: ModelInfo, ranks: int) -> Iterator[LoadedModel]:
    """A model entry over all GPUs of this process, or else over ``ranks`` processes; this one leads.

    ``UsageError`` if that is only one. Should another one end, so does this process.
    """
    device = find_device(Device.AUTO)
    size = torch.cuda.device_count() if device.type == "cuda" else ranks
    if size < 2:
        raise UsageError(
            f"the model {info.name!r} is to be split, but there is one device for it",
            hint="give its pilots more gpus_per_node, or leave out parallel = 'tensor'",
        )
    with beside(size, [sys.executable, "-m", __name__, str(info.directory)]) as seat:
        shared = Ranks(seat, device)
        with shared.watched():
            model = load(info, ranks=shared)
            lead(model)
            yield model
            dismiss(model)
        shared.close()


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def main(directory: Path) -> None:
    """Be a rank that follows. Signals are for rank 0, which lets this one go in good order."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    seat = Seat.of(os.environ)
    assert seat is not None
    ranks = Ranks(seat, find_device(Device.AUTO))
    with ranks.watched():
        follow(load(ModelInfo.read(directory), ranks=ranks))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
