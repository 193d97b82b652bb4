"""A worker knows how full its device is."""

from __future__ import annotations

import os

from ndif_batch.engine.usage import device_usage


def test_without_a_gpu_it_is_the_memory_of_this_process() -> None:
    used = device_usage(cuda=False)
    assert used.name == "cpu"
    assert 2**20 < used.memory_used < used.memory_total
    assert used.memory_total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert used.utilization is None
