"""Models that installed packages bring along: entry points of the group ``ndif_batch.models``.

An entry point is a callable without arguments that gives a ``torch.nn.Module`` with its weights, and example inputs:
one item of each tensor that its forward takes by name, ``[1, …]``. Only who installs packages decides what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from torch import nn

from ndif_batch.errors import ModelError, NotFoundError, UsageError, nearest
from ndif_batch.models.info import ENTRY

GROUP = "ndif_batch.models"


@dataclass(frozen=True, slots=True)
class Registered:
    """What an entry point gives; ``version`` is that of its package."""

    module: nn.Module
    example: dict[str, torch.Tensor]
    version: str

    @property
    def digest(self) -> str:
        """BLAKE2b-256 of the names, types, shapes and values of all weights and buffers, in hexadecimal."""
        total = hashlib.blake2b(digest_size=32)
        for name, value in sorted(self.module.state_dict().items()):
            total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def registered(source: str) -> Registered:
    """The model of ``entry:NAME``.

    ``NotFoundError`` with the nearest name if no installed package has it, ``ModelError`` if it does not give a module
    and example inputs.
    """
    name = source.removeprefix(ENTRY)
    known = entry_points(group=GROUP)
    found = list(known.select(name=name))
    if not found:
        raise NotFoundError(
            f"no installed package has an entry point {name!r} in the group {GROUP}",
            hint=nearest(name, known.names) or "install the package where the model is added and where workers run",
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} installed packages have an entry point {name!r} in the group {GROUP}")
    try:
        made = found[0].load()()
    except Exception as error:
        raise ModelError(f"{source}: {type(error).__name__}: {error}") from error
    version = found[0].dist.version if found[0].dist is not None else "unknown"
    return Registered(*_checked(source, made), version=version)


def _checked(source: str, made: object) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], nn.Module):
        raise ModelError(f"{source} must give a torch.nn.Module and its example inputs, not {type(made).__name__}")
    module, example = made
    if not isinstance(example, Mapping) or not example:
        raise ModelError(f"{source}: the example inputs must be a mapping of names to tensors")
    for name, tensor in example.items():
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0 or tensor.shape[0] != 1:
            raise ModelError(f"{source}: the example input {name!r} must be a tensor of one item, [1, …]")
    return module, dict(sorted(example.items()))
