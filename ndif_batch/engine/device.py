"""Says on which device a worker of this machine would compute."""

from __future__ import annotations

import torch


def describe_device() -> tuple[str, bool]:
    """The device that ``auto`` means here, in words, and whether it is an accelerator."""
    if not torch.cuda.is_available():
        return f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}", False
    found = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return f"{count} × {found.name}, {found.total_memory / 2**30:.0f} GiB, torch {torch.__version__}", True  # noqa: RUF001
