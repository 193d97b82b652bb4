"""Modules of a model by attribute and index, as in PyTorch: their sites, their weights, and calls of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ndif_batch.errors import ModelError, nearest
from ndif_batch.graph.nodes import ParamType
from ndif_batch.graph.sites import SiteTensor
from ndif_batch.trace import active
from ndif_batch.trace.parameters import Param
from ndif_batch.trace.place import refusal, user_place
from ndif_batch.trace.proxy import Proxy
from ndif_batch.trace.shared import Shared

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder
    from ndif_batch.trace.tree import Tree

BLOCKS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.decoder.layers",
    "model.language_model.layers",
    "bert.encoder.layer",
    "roberta.encoder.layer",
)
"""Where models keep their blocks."""


class UnknownModuleError(ModelError, AttributeError):
    """The model has no such module, site or weight; an ``AttributeError`` too, so that ``hasattr`` answers."""


class Module:
    """The module at ``path``. ``.output`` and ``.input`` read and write its sites in the open invoke, as do ``.query``,
    ``.key``, ``.value``, ``.pattern`` and ``.heads`` of one that computes attention.

    Calling it applies the module to a value. ``module["name"]`` reaches a child whose name is taken (``output``).
    """

    __slots__ = ("_path", "_tree")

    _path: str
    _tree: Tree

    def __init__(self, tree: Tree, path: str) -> None:
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "_path", path)

    def __repr__(self) -> str:
        children = ", ".join(self._tree.children(self._path))
        return f"<module {self._path or 'root'}{f' with {children}' if children else ''}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._tree.names(self._path)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._tree.children(self._path) and name not in ("input", "output"):
            return self._shared(name)
        if self._tree.has_site(self._path, name):
            return self._recorder().view(self._site(name))
        if self._tree.has_weight(self._path, name):
            return self._recorder().weight(self._site(name))
        raise self._unknown(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._tree.has_site(self._path, name):
            self._recorder().replace(self._site(name), value)
        elif name == "residual":
            view = self.residual
            if not (isinstance(value, Proxy) and value.same_view(view)):
                view[...] = value
        elif self._tree.has_weight(self._path, name):
            raise refusal(
                f"weight {self._site(name)} cannot be written", hint="write what the module puts out: .output"
            )
        else:
            raise self._unknown(name)

    def __getitem__(self, key: int | slice | str | Param) -> Any:
        children = self._tree.children(self._path)
        if isinstance(key, Param):
            return self._child(self._param(key, children))
        if isinstance(key, slice):
            return [self._child(name) for name in self._numbered()[key]]
        if isinstance(key, str):
            if key not in children:
                raise self._unknown(key)
            return self._child(key)
        return self._child(self._at(key))

    def __len__(self) -> int:
        return len(self._numbered())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Module]:
        return iter([self._child(name) for name in self._numbered()])

    def __call__(self, *values: Any, **kwargs: Any) -> Any:
        """The module applied to ``values``, wherever it stands in the model: ``lm.lm_head(lm.model.norm(h))``."""
        if kwargs:
            raise refusal(f"{self._path} takes values by position only", hint="a call has no keyword arguments")
        return self._recorder().call(self._path, values)

    def skip(self, value: Any) -> None:
        """Leaves the module out in this run: ``value`` stands for its output."""
        self._recorder().skip(self._path, value)

    @property
    def residual(self) -> Proxy:
        """The hidden state that the module puts out: its output, or the first item where that is a tuple."""
        if not self._tree.has_site(self._path, "output"):
            raise refusal(f"{self._path} has no output", hint=self._near("output"))
        value = self._tree.site_value(self._site("output"))
        output: Proxy = self.output
        return output if isinstance(value, SiteTensor) else output[0]

    def names(self) -> tuple[str, ...]:
        """What can be asked of it: modules inside, sites, weights, and :attr:`skip` and :attr:`residual`."""
        return (*self._tree.names(self._path), "residual", "skip")

    def _shared(self, name: str) -> Any:
        """The module ``name`` inside; where a site is called so, too, and an invoke is open, both in one."""
        child, recorder = self._child(name), active.open_recorder()
        if recorder is None or recorder.tree is not self._tree or not recorder.is_in_run:
            return child
        return Shared(recorder.view(self._site(name)), child) if self._tree.is_usable(self._path, name) else child

    def _recorder(self) -> Recorder:
        recorder = active.recorder()
        if recorder.tree is not self._tree:
            raise refusal(f"{self._path} is a module of another model than the trace's")
        return recorder

    def _site(self, name: str) -> str:
        return f"{self._path}.{name}"

    def _child(self, name: str) -> Module:
        return Module(self._tree, f"{self._path}.{name}" if self._path else name)

    def _numbered(self) -> list[str]:
        numbers = [name for name in self._tree.children(self._path) if name.isdecimal()]
        if not numbers:
            raise refusal(f"{self._path or 'the model'} is no list of modules", hint=self._near("0"))
        return sorted(numbers, key=int)

    def _at(self, index: int) -> str:
        numbers = self._numbered()
        try:
            return numbers[index]
        except IndexError:
            count = len(numbers)
            raise ModelError(
                f"{user_place()}: {self._path} has {count} modules; there is no number {index}",
                hint=f"numbers go from 0 to {count - 1}, or from -1 to -{count} counted from the end",
            ) from None

    def _param(self, param: Param, children: tuple[str, ...]) -> str:
        if not children:
            raise refusal(f"{self._path} has no modules inside that {param!r} could choose from")
        recorder = self._recorder()
        name = recorder.parameters.meet(param).param
        recorder.parameters.use(name, ParamType.INT if children[0].isdecimal() else ParamType.STR)
        return f"{{{name}}}"

    def _unknown(self, name: str) -> UnknownModuleError:
        owner = self._path or "the model"
        why = self._tree.sites.without_attention(self._site(name))
        return UnknownModuleError(f"{user_place()}: {owner} has no {name!r}{why}", hint=self._near(name))

    def _near(self, name: str) -> str:
        names = self._tree.names(self._path)
        hint = nearest(name, names)
        listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        return hint if hint.startswith("there is") else f"{hint} There is {listed}"


def path_of(module: Module) -> str:
    """Where a module is, such as ``model.layers.0.mlp``."""
    return module._path


def blocks_of(tree: Tree) -> Module:
    """The list of the model's blocks, whatever the family calls it; ``ModelError`` if there is none."""
    return found_in(tree, "blocks", BLOCKS)


def found_in(tree: Tree, what: str, paths: Sequence[str]) -> Module:
    """The module at the first of ``paths`` that there is; ``ModelError`` if there is none."""
    path = tree.first(paths)
    if path is None:
        raise ModelError(f"the model has no {what} at {' or '.join(paths)}", hint=f"it has {Module(tree, '')!r}")
    return Module(tree, path)
