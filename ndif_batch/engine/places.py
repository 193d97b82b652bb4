"""Keeps apart, in a pack, what models make of the whole token axis: frequencies by the longest run, and places on it.

Both agree with a run alone while a pack is short, so that no trial with a few tokens shows them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.module_tracker import ModuleTracker

from ndif_batch.engine.attention import current_pack
from ndif_batch.engine.vectorised import uploaded

OURS = __name__.partition(".")[0]
LIMIT = "original_max_position_embeddings"


def keep_frequencies_apart(model: nn.Module) -> None:
    """Have each run's rotary frequencies go by its own length, whatever runs beside it or ran before it.

    Those that transformers calls ``dynamic`` and ``longrope`` go by the largest position of a pass, and the first
    kind by that of earlier passes as well.
    """
    for module in model.modules():
        if any("dynamic" in kind or kind == "longrope" for kind in _kinds(module)):
            fresh = _Fresh(module)
            module.register_forward_pre_hook(fresh.restore)
            module.register_forward_hook(fresh.run_by_run, with_kwargs=True)


def _kinds(module: nn.Module) -> list[str]:
    kinds = getattr(module, "rope_type", None)
    found = kinds.values() if isinstance(kinds, Mapping) else [kinds]
    return [kind for kind in found if isinstance(kind, str)]


class _Fresh:
    """A rotary embedding as it was before its first pass. Runs of at most ``short`` tokens have equal frequencies."""

    def __init__(self, module: Any) -> None:
        self._state = {name: value for name, value in vars(module).items() if name.endswith("max_seq_len_cached")}
        self._buffers = {name: value.clone() for name, value in module.named_buffers(recurse=False)}
        given = module.config.rope_parameters
        every = [given, *(one for one in given.values() if isinstance(one, Mapping))]
        self._short = min([module.original_max_seq_len, *(one[LIMIT] for one in every if LIMIT in one)])

    def restore(self, module: nn.Module, args: object) -> None:
        """Forget earlier passes."""
        vars(module).update(self._state)
        for name, value in self._buffers.items():
            setattr(module, name, value.to(getattr(module, name).device, copy=True))

    def run_by_run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """What the module gives for the runs of each length by themselves, in place of what it gave for the pack."""
        pack = current_pack()
        if pack is None:
            return None
        length = pack.run_lengths()
        of_token = np.where(length > self._short, length, 0)
        kinds = np.unique(of_token)
        if len(kinds) == 1:
            return None
        given = dict(zip(("x", "position_ids", "layer_type"), args, strict=False)) | kwargs
        positions = given.pop("position_ids")
        for kind in kinds:
            chosen = uploaded(np.flatnonzero(of_token == kind), positions.device)
            self.restore(module, args)
            _place(output, chosen, module.forward(position_ids=positions[..., chosen], **given))
        return output


def _place(whole: Any, tokens: torch.Tensor, part: Any) -> None:
    """Put values of some ``tokens``, whose axis is the last but one, into those of all."""
    if isinstance(whole, torch.Tensor):
        whole.index_copy_(-2, tokens, part)
    else:
        for one, other in zip(whole, part, strict=True):
            _place(one, tokens, other)


class _Numbered(TorchFunctionMode):
    """Has ``changed`` applied to the numbers that ``torch.arange`` gives a model's code for so many ``tokens``."""

    def __init__(self, tokens: int, changed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._tokens = tokens
        self._changed = changed

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is not torch.arange or args not in ((self._tokens,), (0, self._tokens)):
            return made
        is_ours = sys._getframe(1).f_globals["__name__"].startswith(f"{OURS}.")
        return made if is_ours else self._changed(made)


@contextmanager
def watching_numbers(tokens: int) -> Iterator[set[str]]:
    """Collects the paths of modules that number the ``tokens`` of the token axis inside the block by themselves."""
    paths: set[str] = set()
    tracker = ModuleTracker()

    def seen(made: torch.Tensor) -> torch.Tensor:
        paths.add(max(tracker.parents, key=len).partition(".")[2])
        return made

    with tracker, _Numbered(tokens, seen):
        yield paths


def number_run_by_run(module: nn.Module) -> None:
    """Have a module that numbers the token axis get, in a pack, the place of each token in its own run."""
    open_modes: list[ExitStack] = []

    def entering(module: nn.Module, args: object) -> None:
        open_modes.append(ExitStack())
        pack = current_pack()
        if pack is not None:
            own = pack.positions
            open_modes[-1].enter_context(_Numbered(pack.tokens, lambda made: own(made.device).to(made.dtype)))

    def leaving(module: nn.Module, args: object, output: object) -> None:
        open_modes.pop().close()

    module.register_forward_pre_hook(entering)
    module.register_forward_hook(leaving, always_call=True)
