"""A recorded value: a view of a site, or the result of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ndif_batch.trace import active, methods
from ndif_batch.trace.operand import Operand
from ndif_batch.trace.place import refusal
from ndif_batch.trace.storage import Chain, SiteStorage, Storage

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder

GRADIENT = "it is a gradient, and its change would not reach what it is made of"
COPY = "an index with a list or a tensor makes a copy, and a change of the copy would be lost"


def _inplace(name: str) -> Callable[[Proxy, Any], Proxy]:
    return lambda self, other: self._change(self._apply(name, self, other))


class Proxy(Operand):
    """Looks at a :class:`Storage` through a chain of basic indices, as a torch tensor looks at its memory.

    Assigning into a view of a site writes the site. Everything else that is done with a proxy is recorded as an
    operation, under torch's names.
    """

    __slots__ = ("_chain", "_node", "_storage", "_version")

    _storage: Storage
    _chain: Chain
    _node: int
    _version: int

    def __init__(self, storage: Storage, chain: Chain = ()) -> None:
        self._storage = storage
        self._chain = chain
        self._version = -1

    def __repr__(self) -> str:
        return f"<value of node {self._node}>" if self._version >= 0 else "<view of a value>"

    def _opened(self) -> Storage:
        """The storage; ``TraceError`` if the recording that it is of is not the open one."""
        if active.recorder() is not self._storage.recorder:
            raise refusal("a value of another trace cannot be used in this one", hint="record both in one trace")
        return self._storage

    @property
    def _recorder(self) -> Recorder:
        return self._opened().recorder

    def current(self) -> int:
        """The node that holds what this view sees now."""
        storage = self._opened()
        if self._version != storage.version:
            node = storage.read()
            for index in storage.steps(self._chain):
                node = storage.item(node, index)
            self._node, self._version = node, storage.version
        return self._node

    def sees(self, storage: Storage, chain: Chain) -> bool:
        """Whether this is the view of ``storage`` through ``chain``."""
        return self._storage is storage and self._chain == chain

    def same_view(self, other: Proxy) -> bool:
        """Whether both look at the same place."""
        return self.sees(other._storage, other._chain)

    def __getitem__(self, index: Any) -> Proxy:
        items = self._recorder.arguments.index(index)
        if self._recorder.arguments.is_basic(items):
            return Proxy(self._storage, (*self._chain, items))
        return Proxy(Storage(self._recorder, self._storage.item(self.current(), items), locked=COPY))

    def __setitem__(self, index: Any, value: Any) -> None:
        chain = (*self._chain, self._recorder.arguments.index(index))
        if isinstance(value, Proxy) and value.sees(self._storage, chain):
            return
        self._check_unlocked()
        self._storage.assign(chain, self._recorder.arguments.value(value))

    __iadd__, __isub__ = _inplace("add"), _inplace("sub")
    __imul__, __itruediv__ = _inplace("mul"), _inplace("truediv")
    __ifloordiv__, __imod__ = _inplace("floordiv"), _inplace("mod")
    __ipow__, __imatmul__ = _inplace("pow"), _inplace("matmul")

    def _change(self, value: Any) -> Proxy:
        """``self += …``: into the site it looks at, else into its own storage, whose other views see it too."""
        if self._storage.locked is not None and (self._chain or self._storage.locked is not COPY):
            self._check_unlocked()
        self._storage.assign(self._chain, self._recorder.arguments.value(value))
        return self

    def _check_unlocked(self) -> None:
        if self._storage.locked is not None:
            raise refusal(
                f"this value cannot be assigned into: {self._storage.locked}",
                hint="assign to the site itself with one index, or change a .clone() and assign that",
            )

    def __getattr__(self, name: str) -> Any:
        return methods.find(self, name)

    def __len__(self) -> int:
        if self._recorder.look is None:
            return int(super().__len__())
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if self._recorder.look is None else iter([self[i] for i in range(len(self))])

    def clone(self) -> Proxy:
        """The same value in a storage of its own: changing it does not write the site."""
        return Proxy(Storage(self._recorder, self.current()))

    @property
    def grad(self) -> Proxy:
        """The gradient of the latest :meth:`backward` by what was read at a site, of the shape of this view.

        It says what a small write at the site would change: q_proj's input and k_proj's are two sites.
        """
        storage = self._opened()
        if not isinstance(storage, SiteStorage):
            raise refusal(
                "only what was read at a site has a gradient",
                hint="take the .grad of the site, and index that",
            )
        return Proxy(Storage(self._recorder, self._recorder.gradient(storage.read()), locked=GRADIENT), self._chain)

    @grad.setter
    def grad(self, value: Any) -> None:
        raise refusal("a gradient cannot be replaced on its way", hint="compute with .grad, which is a value")

    def backward(
        self, gradient: None = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> AbstractContextManager[None]:
        """Differentiates this scalar: a ``.grad`` that comes later is of it. A ``with`` block may hold those.

        ``.grad`` is that of the latest call, not a sum over calls; graphs are kept for further ones in any case.
        """
        if gradient is not None or create_graph:
            raise refusal(
                "backward begins with a scalar, and gradients have no gradients",
                hint="multiply by the weights and .sum() before .backward()",
            )
        self._recorder.backward(self.current())
        return nullcontext()

    def save(self, name: str | None = None, dims: Sequence[str] | None = None) -> Proxy:
        """Saves the value as the job's array ``name``; ``dims`` names its dimensions, as ``("token", "hidden")``."""
        self._recorder.save(self, name, dims)
        return self


class Fields(Proxy):
    """The result of an operation with several results, such as ``topk``: unpacked, by index, or by torch's names."""

    __slots__ = ("_names",)

    _names: tuple[str, ...]

    def __init__(self, storage: Storage, names: tuple[str, ...]) -> None:
        super().__init__(storage)
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Proxy]:
        return iter([self[i] for i in range(len(self._names))])

    @property
    def operation(self) -> str:
        """What it is the result of."""
        return self._recorder.nodes[self.current()].op

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return self[self._names.index(name)]
        return super().__getattr__(name)
