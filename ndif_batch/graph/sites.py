"""The site map: where a graph can touch a model, in the order of execution, and which axis there is the tokens'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ndif_batch.errors import ModelError, nearest

ATTENTION: Final = ("query", "key", "value", "pattern", "heads")
"""The sites inside a module that computes attention, in their order: what goes into it, its weights, what comes out."""

SEEN: Final = {"key": 2, "value": 2, "pattern": 3}
"""Of those the axis that has all tokens that a run has seen, those of earlier steps included."""

ALL_SITES: Final = ("input", "output", *ATTENTION)


@dataclass(frozen=True, slots=True)
class SiteTensor:
    """One tensor of a site. ``shape`` as one run alone sees it, with ``None`` at every axis as long as the prompt.

    ``seen`` is the axis, if there is one, that at a later step of a generation has the tokens of the steps before, too.
    """

    shape: tuple[int | None, ...]
    dtype: str
    seen: int | None = None

    @property
    def token_axes(self) -> tuple[int, ...]:
        """The axes that follow the number of tokens; of attention weights that of the queries alone."""
        axes = tuple([i for i, size in enumerate(self.shape) if size is None])
        return axes if len(axes) == 1 else tuple([axis for axis in axes if axis != self.seen])

    def at(self, tokens: int, seen: int | None = None) -> tuple[int, ...]:
        """The shape that a run of ``tokens`` tokens sees which has ``seen`` so many in all, or just these."""
        whole = tokens if seen is None else seen
        return tuple(
            [(whole if i == self.seen else tokens) if size is None else size for i, size in enumerate(self.shape)]
        )


SiteValue: TypeAlias = "SiteTensor | tuple[SiteValue, ...] | None"
"""What a module takes or gives: a tensor, a tuple of such values, or something that is no tensor (``None``)."""


def tensors_of(value: SiteValue, items: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], SiteTensor]]:
    """Every tensor of a site's value, with the items of tuples that lead to it."""
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from tensors_of(item, (*items, i))
    elif value is not None:
        yield items, value


@dataclass(frozen=True, slots=True)
class Site:
    """A module path and ``input`` or ``output``, or, of a module that computes attention, one of :data:`ATTENTION`.

    ``order`` is the place in the order of execution of one forward pass; ``refused`` says why graphs may not touch
    the site (called several times in one pass, say), else ``None``.
    """

    path: str
    order: int
    value: SiteValue
    refused: str | None = None


@dataclass(frozen=True)
class SiteMap:
    """Every site, module path and weight of one model, measured by a probe.

    ``weights`` maps a parameter's path to its shape and dtype. ``head`` is the path of the output embedding
    (``lm_head``), if there is one.
    """

    sites: Mapping[str, Site]
    modules: tuple[str, ...]
    weights: Mapping[str, tuple[tuple[int, ...], str]]
    vocabulary: int
    max_tokens: int
    head: str | None = None

    def site(self, path: str) -> Site:
        """The site at ``path``; ``ModelError`` with the nearest name if there is none or it is refused."""
        found = self.sites.get(path)
        if found is None:
            why = self.without_attention(path)
            raise ModelError(f"the model has no site {path!r}{why}", hint=nearest(path, self.sites))
        if found.refused is not None:
            raise ModelError(f"site {path!r} cannot be used: {found.refused}")
        return found

    def without_attention(self, path: str) -> str:
        """Why there is no such site, if it would be one inside attention; empty if it would not."""
        owner, _, name = path.rpartition(".")
        if name not in ATTENTION or owner not in self.modules:
            return ""
        found = next((site.path for site in self.sites.values() if site.path.endswith(f".{name}")), None)
        if found is None:
            return ": its modules do not compute attention through transformers' AttentionInterface"
        return f": attention is computed in other modules, such as {found.rpartition('.')[0]}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "sites": [[s.path, s.order, _value_to_json(s.value), s.refused] for s in self.sites.values()],
            "modules": list(self.modules),
            "weights": {path: [list(shape), dtype] for path, (shape, dtype) in self.weights.items()},
            "vocabulary": self.vocabulary,
            "max_tokens": self.max_tokens,
            "head": self.head,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SiteMap:
        """The inverse of :meth:`to_json`."""
        return cls(
            sites={p: Site(p, order, _value_from_json(value), refused) for p, order, value, refused in data["sites"]},
            modules=tuple(data["modules"]),
            weights={path: (tuple(shape), dtype) for path, (shape, dtype) in data["weights"].items()},
            vocabulary=data["vocabulary"],
            max_tokens=data["max_tokens"],
            head=data["head"],
        )


def _value_to_json(value: SiteValue) -> Any:
    if isinstance(value, SiteTensor):
        seen = {} if value.seen is None else {"seen": value.seen}
        return {"shape": list(value.shape), "dtype": value.dtype, **seen}
    return None if value is None else [_value_to_json(item) for item in value]


def _value_from_json(data: Any) -> SiteValue:
    if isinstance(data, dict):
        return SiteTensor(tuple(data["shape"]), data["dtype"], data.get("seen"))
    return None if data is None else tuple(_value_from_json(item) for item in data)
