"""Which GPUs of this host a local pilot gets: those that no other one has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ndif_batch.errors import SettingsError, UnavailableError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def listed(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that the environment of a process lets it use, as CUDA names them; none if it says nothing."""
    return tuple(filter(None, (name.strip() for name in environment.get(VISIBLE, "").split(","))))


def devices_of_host(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Those that this process was given, or else the first ``count``."""
    return listed(environment) if VISIBLE in environment else tuple(map(str, range(count)))


def free(devices: Sequence[str], held: Iterable[str], count: int) -> tuple[str, ...]:
    """The first ``count`` of ``devices`` that are not ``held``.

    Raises ``SettingsError`` if there are not so many, and ``UnavailableError`` if others hold them now.
    """
    if count > len(devices):
        raise SettingsError(
            f"resources: gpus_per_node is {count}, but pilots of this host have {len(devices)} GPUs",
            hint=f"the setting cluster.gpus says how many there are, or the variable {VISIBLE} which",
        )
    taken = set(held)
    left = [device for device in devices if device not in taken]
    if count > len(left):
        raise UnavailableError(f"{count} GPUs were asked for, and {len(left)} of {len(devices)} are free")
    return tuple(left[:count])
