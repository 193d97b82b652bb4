"""A model whose weights are split over ranks: what each rank has of a value or a weight, and the whole of it.

transformers' plan says which module's weights are split. Which values are, is measured: they are compared with those
of the same model in one piece, site by site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ndif_batch.engine.layout import Values, at, deviation, each_alone, random_prompts
from ndif_batch.engine.ranks import Ranks, Sent
from ndif_batch.engine.vectorised import OneByOneError
from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap, tensors_of
from ndif_batch.models.probe import entry_device

MODULE, VALUE, WEIGHT, MOST = range(4)
"""What ranks send each other in a pass: inside a split module, the parts of a value, of a weight, numbers."""

HINT = "place its layers one after another instead (parallel = 'layers')"
LENGTH = 9
"""Tokens of the prompt that shows which values are split."""

APART = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 0.3, torch.float16: 0.3}
"""From here on, as a share of their norm, values are not those of the model in one piece.

A sum to which one of two ranks has not added its half is off by 0.7, parts in the wrong order by more; rounding to
eight bits grows to a tenth in a deep model.
"""


class Split:
    """What the ranks have of one model.

    ``axes`` says along which axis, counted from the end, a tensor of a site is split.
    """

    def __init__(self, module: PreTrainedModel, ranks: Ranks) -> None:
        self.ranks = ranks
        self.axes: dict[str, dict[tuple[int, ...], int]] = {}
        self._module = module
        self._weights = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        self._inner = [own.forward for own in _split_modules(module)]
        self._replaying = False
        for number, own in enumerate(_split_modules(module)):
            own.forward = self._said_before(number, own.forward)
        ranks.replays(self._replay)

    def whole(self, path: str, value: Any) -> Any:
        """A site's value from all ranks."""
        return _changed(value, self.axes.get(path, {}), self._gathered)

    def own(self, path: str, value: Any) -> Any:
        """What this rank has of a site's whole value."""
        return _changed(value, self.axes.get(path, {}), self._part)

    def wholes(self, values: Values) -> Values:
        """The same for every site of a pass."""
        return {path: self.whole(path, value) for path, value in values.items()}

    def weight(self, path: str) -> torch.Tensor:
        """A weight from all ranks."""
        weight = self._module.get_parameter(path)
        if not isinstance(weight, DTensor):
            return weight
        return self.ranks.sending(WEIGHT, self._weights.index(path), (), lambda: _joined(weight)).detach()

    def most(self, numbers: torch.Tensor) -> torch.Tensor:
        """The largest of every number over the ranks."""
        return self.ranks.sending(MOST, 0, (numbers,), lambda: self.ranks.most(numbers))

    def applied(self, path: str, module: nn.Module, args: tuple[Any, ...], apply: Any) -> Any:
        """A module's value for whole arguments: it takes in the part of this rank, and what it puts out is joined.

        ``OneByOneError`` for the arguments of many tasks: what ranks send each other is not for ``torch.vmap``.
        """
        if any(isinstance(arg, torch.Tensor) and torch._C._functorch.is_batchedtensor(arg) for arg in args):
            if any("forward" in own.__dict__ for own in module.modules()):
                raise OneByOneError
            return apply(module, args)
        first = _changed(args[0], self.axes.get(f"{path}.input", {}), self._part) if args else None
        value = apply(module, (first, *args[1:]) if args else ())
        return self.whole(f"{path}.output", value)

    def measure(self, twin: PreTrainedModel, sites: SiteMap) -> SiteMap:
        """Finds out which tensors are split. Sites whose parts do not make the whole are refused in what is given.

        ``twin`` is the model in one piece. ``ModelError`` if the last site of all is among them.
        """
        runs = random_prompts(sites.vocabulary, (LENGTH,))
        try:
            (truth,), (seen,) = each_alone(twin, runs), each_alone(self._module, runs)
        except Exception as error:
            raise not_split(error, self.ranks) from error
        for site in sites.sites.values():
            if site.refused is None:
                for items, _ in tensors_of(site.value):
                    own, whole = at(seen, site.path, items), at(truth, site.path, items)
                    axis = _split_axis(own, whole, self.ranks.size)
                    if axis is not None:
                        self.axes.setdefault(site.path, {})[items] = axis - whole.ndim
        together = self.wholes(seen)
        wrong = {
            site.path: f"it is not whole on any of the {self.ranks.size} processes that share the model"
            for site in sites.sites.values()
            if site.refused is None
            and not all(
                _is_right(at(together, site.path, items), at(truth, site.path, items))
                for items, _ in tensors_of(site.value)
            )
        }
        wrong = {path: reason for found in self.ranks.all(wrong) for path, reason in found.items()}
        last = max((site for site in sites.sites.values() if site.refused is None), key=lambda site: site.order)
        if last.path in wrong:
            raise ModelError(
                f"split over {self.ranks.size} processes the model has other values at {last.path!r} than in one piece",
                hint=HINT,
            )
        for path in wrong:
            self.axes.pop(path, None)
        kept = {path: replace(site, refused=wrong.get(path, site.refused)) for path, site in sites.sites.items()}
        return replace(sites, sites=kept)

    def _gathered(self, part: torch.Tensor, axis: int) -> torch.Tensor:
        return self.ranks.sending(VALUE, 0, (part,), lambda: self.ranks.gathered(part, axis))

    def _part(self, whole: torch.Tensor, axis: int) -> torch.Tensor:
        width = whole.shape[axis] // self.ranks.size
        return whole.narrow(axis, self.ranks.rank * width, width).contiguous()

    def _said_before(self, number: int, inner: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._replaying:
                return inner(*args, **kwargs)
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            return self.ranks.sending(MODULE, number, tensors, lambda: inner(*args, **kwargs))

        return forward

    def _replay(self, sent: Sent) -> None:
        device = entry_device(self._module)
        self._replaying = True
        try:
            with torch.no_grad():
                empty = [torch.zeros(shape, dtype=dtype, device=device) for dtype, shape in sent.tensors]
                if sent.kind == MODULE:
                    self._inner[sent.which](*empty)
                elif sent.kind == VALUE:
                    self.ranks.gathered(empty[0], 0)
                elif sent.kind == WEIGHT:
                    _joined(self._module.get_parameter(self._weights[sent.which]))
                else:
                    self.ranks.most(empty[0])
        finally:
            self._replaying = False


def not_split(error: Exception, ranks: Ranks) -> ModelError:
    """What keeps a model from being split."""
    reason = (str(error).splitlines() or [""])[0]
    return ModelError(
        f"the model cannot be split over {ranks.size} processes: {type(error).__name__}: {reason}", hint=HINT
    )


def _split_modules(module: nn.Module) -> list[nn.Module]:
    """Those into whose ``forward`` transformers has put what goes on between ranks."""
    return [own for own in module.modules() if "forward" in own.__dict__]


def _joined(weight: Any) -> torch.Tensor:
    found: torch.Tensor = weight.full_tensor()
    return found


def _changed(value: Any, axes: Mapping[tuple[int, ...], int], change: Any, items: tuple[int, ...] = ()) -> Any:
    """``value`` with ``change`` applied to the tensors in it that are split."""
    if not axes or value is None:
        return value
    if isinstance(value, tuple | list):
        return type(value)(_changed(item, axes, change, (*items, number)) for number, item in enumerate(value))
    return change(value, axes[items]) if items in axes else value


def _split_axis(own: Any, whole: Any, size: int) -> int | None:
    """The axis of which a rank has one part in ``size``, if it is that alone in which they differ."""
    if not isinstance(own, torch.Tensor) or not isinstance(whole, torch.Tensor) or own.ndim != whole.ndim:
        return None
    pairs = list(zip(own.shape, whole.shape, strict=True))
    other = [axis for axis, (part, all_of_it) in enumerate(pairs) if part != all_of_it]
    return other[0] if len(other) == 1 and pairs[other[0]][0] * size == pairs[other[0]][1] else None


def _is_right(seen: Any, truth: Any) -> bool:
    if not isinstance(seen, torch.Tensor) or not isinstance(truth, torch.Tensor) or seen.shape != truth.shape:
        return False
    if not truth.is_floating_point():
        return torch.equal(seen, truth)
    return deviation(seen, truth) <= APART[truth.dtype]
