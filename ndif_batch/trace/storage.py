"""What recorded values look at: like a tensor's storage in torch, an assignment through one view is seen by all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, Step
from ndif_batch.graph.sites import SiteValue

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
        rebuilt = self._rebuilt(self.read(), chain, value)
        assert isinstance(rebuilt, NodeRef)
        self._node = rebuilt.node
        self.version += 1

    def item(self, node: int, index: Index) -> int:
        """The node of ``node[index]``."""
        return self.recorder.add(Node("getitem", (NodeRef(node), index)))

    def _rebuilt(self, node: int, chain: Chain, value: Arg) -> Arg:
        """The value of ``node`` with ``value`` where ``chain`` leads in it."""
        outer = [node]
        for index in chain[:-1]:
            outer.append(self.item(outer[-1], index))
        for inner, index in zip(reversed(outer), reversed(chain), strict=False):
            value = NodeRef(self.recorder.add(Node("setitem", (NodeRef(inner), index, value))))
        return value


class SiteStorage(Storage):
    """The value of one site in one run, at some steps of it.

    Assigning into it writes the site; later looks at it read the site again.
    """

    __slots__ = ("run", "site", "step")

    def __init__(self, recorder: Recorder, run: int, site: str, step: Step | None = None) -> None:
        super().__init__(recorder, None)
        self.run = run
        self.site = site
        self.step = step

    def read(self) -> int:
        """The latest read of the site."""
        if self._node is None:
            self._node = self.recorder.add(Node("read", run=self.run, site=self.site, step=self.step))
        return self._node

    def steps(self, chain: Chain) -> Chain:
        """``x[0][:, p]`` is ``x[0, :, p]``, which lets the engine see the position; an item of a tuple comes first."""
        joined = self._joined(chain)
        if not joined:
            return joined
        value, first, rest = self.recorder.tree.site_value(self.site), joined[0], joined[1:]
        items: list[Index] = []
        while isinstance(value, tuple) and len(first) > 1:
            items.append(first[:1])
            value, first = _item_of(value, first[0]), first[1:]
        return (*items, first, *rest)

    def assign(self, chain: Chain, value: Arg) -> None:
        """Records one write: where the first index leads, of what the others change in it."""
        chain = self._joined(chain)
        index = chain[0] if chain else None
        if len(chain) > 1:
            region = self.read()
            for step in self.steps(chain[:1]):
                region = self.item(region, step)
            value = self._rebuilt(region, chain[1:], value)
        self.recorder.add(Node("write", (value,), run=self.run, site=self.site, index=index, step=self.step))
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


def _item_of(value: tuple[SiteValue, ...], item: Arg) -> SiteValue:
    return value[item] if isinstance(item, int) and -len(value) <= item < len(value) else None


def _is_position(item: Arg) -> bool:
    return (isinstance(item, int) and not isinstance(item, bool)) or isinstance(item, ParamRef | NodeRef)
