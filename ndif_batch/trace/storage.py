"""What recorded values look at: like a tensor's storage in torch, an assignment through one view is seen by all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef
from ndif_batch.graph.sites import SiteTensor

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder

Index: TypeAlias = tuple[Arg, ...]
Chain: TypeAlias = tuple[Index, ...]
"""Basic indices applied one after the other: each gives a view of what is before it."""


class Storage:
    """A value that nodes computed. Assigning into it is a functional ``setitem``: it then holds the new node.

    ``locked`` says why nothing may be assigned (a copy whose change would be lost), else ``None``. ``version`` grows
    with every change.
    """

    __slots__ = ("_node", "locked", "recorder", "version")

    def __init__(self, recorder: Recorder, node: int | None, locked: str | None = None) -> None:
        self.recorder = recorder
        self.locked = locked
        self.version = 0
        self._node = node

    def read(self) -> int:
        """The node that holds the whole value as it is now."""
        assert self._node is not None
        return self._node

    def steps(self, chain: Chain) -> Chain:
        """The indices to apply one after the other to see what ``chain`` leads to."""
        return chain

    def assign(self, chain: Chain, value: Arg) -> None:
        """Puts ``value`` where ``chain`` leads; an empty chain is the whole."""
        if isinstance(value, NodeRef) and not chain:
            self._node = value.node
        else:
            self._node = self._rebuilt(chain, value)
        self.version += 1

    def _rebuilt(self, chain: Chain, value: Arg) -> int:
        """The node of the whole value with ``value`` where ``chain`` leads."""
        outer = [self.read()]
        for index in chain[:-1]:
            outer.append(self.recorder.add(Node("getitem", (NodeRef(outer[-1]), index))))
        for node, index in zip(reversed(outer), reversed(chain), strict=True):
            value = NodeRef(self.recorder.add(Node("setitem", (NodeRef(node), index, value))))
        assert isinstance(value, NodeRef)
        return value.node


class SiteStorage(Storage):
    """The value of one site in one run. Assigning into it writes the site; later looks at it read the site again."""

    __slots__ = ("run", "site")

    def __init__(self, recorder: Recorder, run: int, site: str) -> None:
        super().__init__(recorder, None)
        self.run = run
        self.site = site

    def read(self) -> int:
        """The latest read of the site."""
        if self._node is None:
            self._node = self.recorder.add(Node("read", run=self.run, site=self.site))
        return self._node

    def steps(self, chain: Chain) -> Chain:
        """In a tensor ``x[0][:, p]`` is ``x[0, :, p]``, which lets the engine see the position."""
        is_tensor = isinstance(self.recorder.tree.site_value(self.site), SiteTensor)
        return self._joined(chain) if is_tensor else chain

    def assign(self, chain: Chain, value: Arg) -> None:
        """Records the write: with an index where one index leads there, else of the whole rebuilt value."""
        chain = self._joined(chain)
        if len(chain) > 1:
            chain, value = (), NodeRef(self._rebuilt(chain, value))
        index = chain[0] if chain else None
        self.recorder.add(Node("write", (value,), run=self.run, site=self.site, index=index))
        self.recorder.written(self.run, self.site)

    def stale(self) -> None:
        """The site may have changed: the next look at it is a new read."""
        self._node = None
        self.version += 1

    def _joined(self, chain: Chain) -> Chain:
        basic = all(map(self.recorder.arguments.is_basic, chain))
        while basic and len(chain) > 1 and all(_is_position(item) for item in chain[0]):
            chain = ((*chain[0], *chain[1]), *chain[2:])
        return chain


def may_be_same(site: str, other: str) -> bool:
    """Whether two sites can be one when parameters in their paths are bound."""
    a, b = site.split("."), other.split(".")
    return len(a) == len(b) and all(x == y or "{" in x or "{" in y for x, y in zip(a, b, strict=True))


def _is_position(item: Arg) -> bool:
    return (isinstance(item, int) and not isinstance(item, bool)) or isinstance(item, ParamRef | NodeRef)
