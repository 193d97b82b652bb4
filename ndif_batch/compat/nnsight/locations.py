"""nnsight's locations (``model.transformer.h.0.output``) as sites of a graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from nnsight.intervention.interleaver import Event

from ndif_batch.compat.nnsight.recorder import NNsightRecorder
from ndif_batch.graph.sites import ATTENTION, SiteTensor, SiteValue
from ndif_batch.trace.place import refusal
from ndif_batch.trace.proxy import Proxy

_SCALES = {"final_logit_softcapping": None, "logits_scaling": 1.0, "logit_scale": 1.0}
"""What some families do to logits behind the head, by the configuration's name, and what leaves them as they are."""

_INSIDE = re.compile(r"(.+)\.source\.attention_interface_1\.(input|output)")
"""nnsight's name of the call that computes attention in transformers' modules."""

_ATTENTION = {"input": (None, "query", "key", "value", None), "output": ("heads", "pattern")}
"""What that call takes (the module and the mask are no tensors of the run) and gives, by the names of our sites."""

_NOT_HERE = f"there are .input and .output of modules, and of those that compute attention .{', .'.join(ATTENTION)}"


class Output(dict[str, Any]):
    """What the whole model gives: ``model.output.logits``, or by key or number as of a ``ModelOutput``."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__("logits" if key == 0 else key)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("__"):
            raise AttributeError(name)
        raise refusal(f"the model's output has no {name!r} here", hint="it has logits; read other values at modules")

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self, name)[...] = value


class Inputs(dict[str, Any]):
    """A module's keyword arguments, of which a graph does not know those that are no site."""

    def __missing__(self, key: str) -> Any:
        raise refusal(f"the module's input {key!r} is no site", hint="its first input is: .input")


class Locations:
    """Answers what blocks ask of the model ``root`` in the recorder's open run and step."""

    def __init__(self, recorder: NNsightRecorder, root: Any) -> None:
        self.root = root
        self.prompts: dict[int, tuple[int, ...]] = {}
        self._recorder = recorder

    def module(self, path: str) -> str | None:
        """The path in the graph of nnsight's, or ``None`` if the model has no such module."""
        own = path.removeprefix(f"{self.root.path}.")
        return own if own != path and own in self._recorder.tree.matches(own) else None

    def has(self, location: str) -> bool:
        """Whether there is a site for a module's output or input."""
        path, _, kind = location.rpartition(".")
        own = self.module(path)
        site = None if own is None else self._recorder.tree.sites.sites.get(f"{own}.{kind}")
        return site is not None and site.refused is None

    def answer(self, pending: Any) -> Any:
        """The recorded value that is asked for; ``None`` for what is to be done."""
        if pending.event is Event.VALUE:
            return self.value(pending.provider)
        if pending.event is Event.SWAP:
            self._assign(pending.provider, pending.value)
        else:
            path, _, _ = pending.provider.rpartition(".")
            self._recorder.skip(self._own(path, pending.provider), pending.value)
        return None

    def value(self, location: str) -> Any:
        """What is at a location, as nnsight gives it: tuples where the model has tuples."""
        if location == "result" and self._recorder.generates:
            return self._generated()
        if location in ("result", f"{self.root.path}.output"):
            return self._logits()
        values = tuple(None if site is None else self._view(site) for site in self._sites(location))
        if location.endswith(".input"):
            return values, Inputs()
        return values if len(values) > 1 else values[0]

    def _assign(self, location: str, value: Any) -> None:
        if isinstance(value, Output) and location == f"{self.root.path}.output":
            return
        sites = self._sites(location)
        values = value[0] if location.endswith(".input") else value if len(sites) > 1 else (value,)
        for site, new in zip(sites, values, strict=True):
            if site is not None:
                view, kind = self._recorder.view(site), self._recorder.tree.site_value(site)
                for items, item in list(_changes(site, kind, view, new)):
                    self._recorder.replace(site, item, items or None)

    def _sites(self, location: str) -> list[str | None]:
        """The site of a module's output or first input; those of what a call inside of it takes or gives."""
        inside = _INSIDE.fullmatch(location)
        if inside is not None and (own := self.module(inside[1])) is not None:
            return [None if name is None else f"{own}.{name}" for name in _ATTENTION[inside[2]]]
        path, _, kind = location.rpartition(".")
        return [f"{self._own(path, location)}.{kind}"]

    def _view(self, site: str) -> Any:
        return laid_out(self._recorder.tree.site_value(site), self._recorder.view(site))

    def _own(self, path: str, location: str) -> str:
        own = self.module(path)
        if own is None:
            raise refusal(f"{location} is no site of a graph", hint=_NOT_HERE)
        return own

    def _logits(self) -> Output:
        head, config = self._recorder.tree.sites.head, self.root._module.config
        scaled = [name for name, none in _SCALES.items() if getattr(config, name, none) not in (None, none)]
        if head is None or scaled:
            why = f"its {scaled[0]} is applied behind the head" if scaled else "it has no head"
            raise refusal(f"the model's logits are no site: {why}", hint="take the head's output and apply it")
        return Output(logits=self._recorder.view(f"{head}.output"))

    def _generated(self) -> Any:
        step, self._recorder.step = self._recorder.step, None
        prompt = torch.tensor(self.prompts[self._recorder.run])
        tokens = self._recorder.apply("cat", ([prompt, self._recorder.tokens()],), {})
        self._recorder.step = step
        return tokens[None]


def _changes(
    site: str, kind: SiteValue, view: Any, value: Any, items: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """What of ``value`` is not what ``view`` sees already, with the items of tuples that lead to it."""
    if isinstance(kind, SiteTensor):
        if not (isinstance(value, Proxy) and value.same_view(view)):
            yield items, value
    elif isinstance(kind, tuple):
        if not isinstance(value, tuple | list) or len(value) != len(kind):
            raise refusal(f"{site} is {len(kind)} values", hint="assign as many, or into one of them: .output[0][:]")
        for i, (inner, item) in enumerate(zip(kind, value, strict=True)):
            yield from _changes(site, inner, view[i], item, (*items, i))


def laid_out(kind: SiteValue, view: Any) -> Any:
    """A view of a site as the module gives it: tuples of views and of ``None``."""
    if isinstance(kind, tuple):
        return tuple(laid_out(inner, view[i]) for i, inner in enumerate(kind))
    return None if kind is None else view
