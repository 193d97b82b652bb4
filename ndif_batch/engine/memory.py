"""How many bytes tasks need while they run: measured at load on a GPU, told by shapes elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from ndif_batch.engine.blocks import find_blocks
from ndif_batch.engine.given import Given
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.loaded import Footprint, LoadedModel, Outline
from ndif_batch.engine.pack import Lanes
from ndif_batch.engine.passes import run_pass
from ndif_batch.engine.plan import PassPlan
from ndif_batch.engine.program import Program
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.nodes import inputs
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue

TRIAL_TOKENS = (1024, 4096)
"""Tokens of the two passes whose peaks show what a token costs."""
TRIAL_LENGTH = 16
USABLE = 0.85
"""Share of the free memory that a pass may be planned for: allocators waste some."""
KEYS = ".k_proj.output"
SPARE = 1.5
"""So much more than what lies in it may a cache that has just grown take."""
WIDE_TENSORS, HIDDEN_TENSORS = 3, 8
"""Where nothing was measured: how many of a block's widest tensors, and of its hidden states, live at once."""
NOTED = 3
"""What a site at which gradients are taken is held so often: noted, handed on as a copy, and as the gradient."""


def measure_footprint(model: LoadedModel, items: Sequence[Given] = ()) -> Footprint:
    """What a pass of the model takes beside its weights; ``items`` are prompts of one that takes tensors."""
    shapes = footprint_by_shapes(model)
    kept = shapes.kept if model.split is not None or items else _kept(model)
    if model.device.type != "cuda":
        return replace(shapes, kept=kept)
    few, many = (1, 1 if model.layout.arrangement is Arrangement.ALONE else len(items)) if items else TRIAL_TOKENS
    short, long = (
        _peak(model, items[:count]) if items else _peak(model, _prompts(model, count)) for count in (few, many)
    )
    token = max(long - short, 0) / (many - few) if many > few else short
    head = bytes_a_token(model.sites, f"{model.sites.head}.output")
    return Footprint(max(short - token * few, 0), token, head, kept, shapes.entering, shapes.cached)


def most(footprints: Sequence[Footprint]) -> Footprint:
    """What the ranks need that need most."""
    return Footprint(*(max(getattr(one, own.name) for one in footprints) for own in fields(Footprint)))


def footprint_by_shapes(model: Outline) -> Footprint:
    """The same where nothing can be measured."""
    sites, head = model.sites, f"{model.sites.head}.output"
    first = next(iter(find_blocks(sites)), "")
    inside = [path for path in sites.sites if path.startswith(first) and path != head]
    widest, hidden = max((bytes_a_token(sites, path) for path in inside), default=0), f"{first}.output"
    kept = sum(bytes_a_token(sites, path) for path in inside if path.endswith(".output"))
    token = WIDE_TENSORS * widest + HIDDEN_TENSORS * bytes_a_token(sites, hidden)
    entering = bytes_a_token(sites, hidden) if first else kept
    return Footprint(0, token, bytes_a_token(sites, head), kept, entering, _cached(sites, first))


def _cached(sites: SiteMap, block: str) -> float:
    """Bytes of a token's keys and values: as wide as what projects them, or as the hidden states at most."""
    keys = [bytes_a_token(sites, path) for path in sites.sites if path.startswith(block) and path.endswith(KEYS)]
    return SPARE * 2 * len(find_blocks(sites)) * min([*keys, bytes_a_token(sites, f"{block}.output")])


def free_here(model: LoadedModel) -> int:
    """Memory that a pass of a model can be planned for, on every device of this process."""
    return min(free_bytes(device) for device in model.devices or (model.device,))


def free_for_passes(model: LoadedModel) -> int:
    """The same on every device where it computes."""
    return free_here(model) if model.split is None else model.split.ranks.free_bytes(free_here(model))


def free_bytes(device: torch.device) -> int:
    """Memory that a pass can be planned for: of a GPU what is free there, else half of what the machine has free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total) - reserved
        unused = reserved - torch.cuda.memory_allocated(device)
        return int(USABLE * (min(free, allowed) + unused))
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024 // 2


@dataclass(frozen=True, slots=True)
class Live:
    """Bytes of the values of one task: the most that wait for a later moment of a pass, the most within one, and what
    is ``saved`` in the end."""

    between: int = 0
    within: int = 0
    saved: int = 0


def live_bytes(program: Program, values: Mapping[int, Abstract]) -> Live:
    """What a task's values take; ``values`` are by the submitted id of a node, of which several can have a part."""
    left = list(program.uses)
    live: dict[int, int] = {}
    between = within = 0
    entries = program.entries
    parts = Counter(program.origin)
    for entry, following in zip(entries, (*entries[1:], None), strict=True):
        node = program.graph.nodes[entry.node]
        makes = node.op not in ("weight", "save", "print")
        origin = program.origin[entry.node]
        live[entry.node] = _bytes(values.get(origin)) // parts[origin] if makes else 0
        within = max(within, sum(live.values()))
        for used in (*inputs(node), entry.node):
            left[used] -= used != entry.node
            if not left[used]:
                live.pop(used, None)
        if following is None or (following.stage, following.order) != (entry.stage, entry.order):
            between = max(between, sum(live.values()))
    saves = (
        inputs(program.graph.nodes[entry.node]) for entry in entries if program.graph.nodes[entry.node].op == "save"
    )
    return Live(between, within, sum(_bytes(values.get(program.origin[node])) for save in saves for node in save))


def shown_bytes(count: float) -> str:
    """``1.5 GiB`` for 1,610,612,736."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


@contextmanager
def peak_of(*devices: torch.device) -> Iterator[list[int]]:
    """Appends, at the end of the block, by how many bytes the memory used on a GPU rose; of several the most."""
    found: list[int] = []
    before = []
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before.append(torch.cuda.memory_allocated(device))
    yield found
    for device in devices:
        torch.cuda.synchronize(device)
    rises = [torch.cuda.max_memory_allocated(own) - was for own, was in zip(devices, before, strict=True)]
    found.append(max(rises))


def _peak(model: LoadedModel, prompts: Sequence[Sequence[int] | Given]) -> int:
    with peak_of(*model.devices) as found:
        run_pass(model, _trial(model, prompts))
    return found[0]


def _prompts(model: LoadedModel, tokens: int) -> list[range]:
    """So many tokens, in prompts of equal length."""
    length = min(TRIAL_LENGTH, model.sites.max_tokens)
    return [range(length)] * (1 if model.layout.arrangement is Arrangement.ALONE else tokens // length)


def _trial(model: LoadedModel, prompts: Sequence[Sequence[int] | Given], *, differentiated: bool = False) -> PassPlan:
    """A pass through all blocks that ends before the head."""
    births = model.layout.moments.births
    ends = [site.order for site in model.sites.sites.values() if site.refused is None]
    lanes = Lanes.of(prompts)
    exits = np.full(len(lanes.prompts), births[-1] if births else max(ends))
    everything = np.arange(lanes.positions)
    return PassPlan(lanes, np.full_like(exits, -1), exits, everything, int(exits[0]), {}, differentiated)


def _kept(model: LoadedModel) -> float:
    """Bytes that autograd keeps of a block for a token, weights aside."""
    length = min(TRIAL_LENGTH, model.sites.max_tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def differentiable(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_().clone()

    handle = model.module.get_input_embeddings().register_forward_hook(differentiable)  # type: ignore[operator]
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            run_pass(model, _trial(model, [range(length)], differentiated=True))
    finally:
        handle.remove()
    return sum(kept.values()) / (length * max(len(find_blocks(model.sites)), 1))


def bytes_a_token(sites: SiteMap, path: str) -> int:
    """What a site holds for one token."""
    return _site_bytes(sites.sites[path].value) if path in sites.sites else 0


def _site_bytes(value: SiteValue) -> int:
    if isinstance(value, tuple):
        return sum(_site_bytes(item) for item in value)
    return _bytes(AbstractTensor(value.at(1), value.dtype)) if isinstance(value, SiteTensor) and value.token_axes else 0


def _bytes(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(_bytes(item) for item in value)
    return value.bytes if isinstance(value, AbstractTensor) else 0
