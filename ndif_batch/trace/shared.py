"""A name that a site of a module and a module inside it have both, such as ``query`` in BERT's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ndif_batch.trace.proxy import Proxy

if TYPE_CHECKING:
    from ndif_batch.trace.modules import Module


class Shared(Proxy):
    """The value of the site, with what the module has: ``.output``, ``.input``, weights, modules, and calls of it."""

    __slots__ = ("_module",)

    _module: Module

    def __init__(self, view: Proxy, module: Module) -> None:
        object.__setattr__(self, "_module", module)
        super().__init__(view._storage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name) if name in self._module.names() else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._module.names():
            setattr(self._module, name, value)
        else:
            object.__setattr__(self, name, value)

    def __call__(self, *values: Any, **kwargs: Any) -> Any:
        """The module applied to ``values``."""
        return self._module(*values, **kwargs)
