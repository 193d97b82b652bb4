"""The names of a model: modules, sites and weights, with parameters allowed where a module's number or name stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap, SiteValue
from ndif_batch.trace.place import user_place

_PARAM = re.compile(r"\\\{\w+\\\}")


class Tree:
    """Looks names up in a :class:`SiteMap`. A path such as ``model.layers.{layer}`` stands for every layer."""

    def __init__(self, sites: SiteMap) -> None:
        self.sites = sites
        self.matches = lru_cache(maxsize=None)(self._matches)
        self.children = lru_cache(maxsize=None)(self._children)

    def _matches(self, path: str) -> tuple[str, ...]:
        """The modules that ``path`` can be."""
        if "{" not in path:
            return (path,) if path in self._modules or not path else ()
        pattern = re.compile(_PARAM.sub(r"[^.]+", re.escape(path)))
        return tuple(module for module in self.sites.modules if pattern.fullmatch(module))

    def _children(self, path: str) -> tuple[str, ...]:
        """Names of the modules directly inside those that ``path`` can be, in the model's order."""
        return tuple(dict.fromkeys(child for match in self.matches(path) for child in self._inside.get(match, ())))

    def has_site(self, path: str, name: str) -> bool:
        """Whether ``name`` (``output``, …) is a site of a module that ``path`` can be."""
        return any(f"{match}.{name}" in self.sites.sites for match in self.matches(path))

    def is_usable(self, path: str, name: str) -> bool:
        """Whether ``name`` is such a site that is not refused."""
        found = (self.sites.sites.get(f"{match}.{name}") for match in self.matches(path))
        return any(site is not None and site.refused is None for site in found)

    def has_weight(self, path: str, name: str) -> bool:
        """Whether ``name`` (``weight``, …) is a parameter of a module that ``path`` can be."""
        return any(f"{match}.{name}" in self.sites.weights for match in self.matches(path))

    def names(self, path: str) -> list[str]:
        """Everything that can be asked of a module: children, sites, weights."""
        found = dict.fromkeys(self.children(path))
        prefixes = tuple(f"{match}." for match in self.matches(path)) if path else ()
        for known in (*self.sites.sites, *self.sites.weights):
            head, _, name = known.rpartition(".")
            if f"{head}." in prefixes:
                found[name] = None
        return list(found)

    def check_site(self, site: str) -> None:
        """``ModelError`` if every site that ``site`` can be is refused."""
        path, _, name = site.rpartition(".")
        errors = []
        for match in self.matches(path):
            try:
                self.sites.site(f"{match}.{name}")
            except ModelError as error:
                errors.append(error)
            else:
                return
        raise ModelError(f"{user_place()}: {errors[0].message}", hint=errors[0].hint)

    def site_value(self, site: str) -> SiteValue:
        """What the site holds: the value of the first that ``site`` can be, their form being the same."""
        path, _, name = site.rpartition(".")
        found = (self.sites.sites.get(f"{match}.{name}") for match in self.matches(path))
        return next((known.value for known in found if known is not None), None)

    def first(self, paths: Sequence[str]) -> str | None:
        """The first of ``paths`` that is a module."""
        return next((path for path in paths if path in self._modules), None)

    @cached_property
    def _modules(self) -> frozenset[str]:
        return frozenset(self.sites.modules)

    @cached_property
    def _inside(self) -> dict[str, list[str]]:
        inside: dict[str, list[str]] = {}
        for module in self.sites.modules:
            parent, _, name = module.rpartition(".")
            inside.setdefault(parent, []).append(name)
        return inside
