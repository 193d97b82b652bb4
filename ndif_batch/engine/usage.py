"""How full and how busy the devices of this process are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """Bytes of memory used by all processes and in total, over all devices; ``utilization`` from 0 to 1, if known."""

    name: str
    memory_used: int
    memory_total: int
    utilization: float | None = None


def device_usage(cuda: bool) -> DeviceUsage:
    """Of the visible GPUs; without ``cuda`` the memory of this process and of its machine."""
    if not cuda:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
        return DeviceUsage("cpu", resident, os.sysconf("SC_PHYS_PAGES") * _PAGE)
    devices = range(torch.cuda.device_count())
    free, total = zip(*(torch.cuda.mem_get_info(device) for device in devices), strict=True)
    name = torch.cuda.get_device_name(0)
    shown = f"{len(devices)} × {name}" if len(devices) > 1 else name  # noqa: RUF001
    return DeviceUsage(shown, sum(total) - sum(free), sum(total), _utilization(devices))


def _utilization(devices: range) -> float | None:
    try:
        return sum(torch.cuda.utilization(device) for device in devices) / (100 * len(devices))
    except (ModuleNotFoundError, RuntimeError):
        return None
