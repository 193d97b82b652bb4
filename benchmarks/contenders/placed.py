"""The measured model over several devices: layer after layer, or each weight split; and what the devices say of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from statistics import fmean
from typing import Any
from zlib import crc32

import torch
from transformers import AutoConfig

from contenders.protocol import LAYERS, TENSOR, Subject
from contenders.shapes import SHAPES, Shape
from ndif_batch.engine.distributed import fill, make_split
from ndif_batch.engine.ranks import Ranks, Seat
from ndif_batch.models.architecture import empty_model

LOOK_SECONDS = 0.02


@cache
def ranks() -> Ranks:
    """This process among those that share the model."""
    seat = Seat.of(os.environ)
    assert seat is not None, "a split model is measured in several processes"
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(seat.rank)
    return Ranks(seat, torch.device("cuda" if on_cuda else "cpu"))


def make(subject: Subject) -> Any:
    """The model with random weights, each made where it stays."""
    shape = SHAPES[subject.shape]
    config = AutoConfig.for_model(shape.family, **shape.config(subject.layers))

    def weight(name: str, empty: torch.Tensor) -> torch.Tensor:
        if empty.ndim == 1:
            return empty.fill_(0 if name.endswith("bias") else 1)
        generator = torch.Generator(empty.device).manual_seed(crc32(name.encode()))
        return empty.normal_(0, _spread(name, shape), generator=generator)

    if subject.parallel == TENSOR:
        on_cuda = subject.device == "cuda"
        device = torch.device("cuda", torch.cuda.current_device()) if ranks() and on_cuda else torch.device("cpu")
        return make_split(config, subject.dtype, ranks(), device, weight)
    assert subject.parallel == LAYERS
    return _in_sequence(config, subject, weight)


def _spread(name: str, shape: Shape) -> float:
    """What a block adds is small beside the embedding, as it is after training: else rounding grows by the layer.

    In bfloat16 plain random weights of 80 layers give another model for every size of a batch.
    """
    if name.endswith("embed_tokens.weight"):
        return 1.0
    return shape.spread / 64 if name.endswith(("o_proj.weight", "down_proj.weight")) else shape.spread


def _in_sequence(config: Any, subject: Subject, weight: Any) -> Any:
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    model = empty_model(config, subject.dtype)
    if subject.device == "cpu":
        fill(model, lambda name, empty: torch.device("cpu"), weight)
        return model
    whole: Any = model._no_split_modules
    room = {device: torch.cuda.mem_get_info(device)[0] for device in range(subject.devices)}
    balanced = get_balanced_memory(model, room, no_split_module_classes=list(whole))
    places: Mapping[str, Any] = infer_auto_device_map(model, balanced, no_split_module_classes=list(whole))

    def place(name: str, _empty: torch.Tensor) -> torch.device:
        found = max((path for path in places if f"{name}.".startswith(f"{path}." if path else "")), key=len)
        return torch.device("cuda", int(places[found]))

    fill(model, place, weight)
    return dispatch_model(model, dict(places)).eval()


def memory_gib(subject: Subject) -> list[float]:
    """What is in use on each device, by all processes; nothing on a CPU."""
    if subject.device == "cpu":
        return []
    try:
        return [round(torch.cuda.device_memory_used(device) / 2**30, 1) for device in range(subject.devices)]
    except (ModuleNotFoundError, RuntimeError):
        return []


@contextmanager
def watching_load(subject: Subject, shares: list[float]) -> Iterator[None]:
    """Puts into ``shares``, at the end, the share of the time in which each device had a kernel at work."""
    seen: list[list[float]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            try:
                seen.append([torch.cuda.utilization(device) / 100 for device in range(subject.devices)])
            except (ModuleNotFoundError, RuntimeError):
                return

    watch = threading.Thread(target=look, daemon=True)
    if subject.device != "cpu":
        watch.start()
    try:
        yield
    finally:
        over.set()
        if subject.device != "cpu":
            watch.join()
        shares[:] = [round(fmean(own), 3) for own in zip(*seen, strict=True)]
