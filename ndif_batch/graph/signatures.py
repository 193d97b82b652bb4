"""Signatures of operations: names, types and defaults of arguments, written as Python writes them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cached_property
from types import EllipsisType
from typing import Any, Final, Literal

from ndif_batch.errors import nearest
from ndif_batch.graph.abstract import ITEM_BYTES, AbstractTensor
from ndif_batch.graph.nodes import Arg, NodeRef, ParamRef, SliceArg, TensorRef


class ArgType(StrEnum):
    """What may stand in a place of a signature. A default of ``None`` lets ``None`` stand there too."""

    TENSOR = "tensor"
    OPERAND = "operand"
    NUMBER = "number"
    INT = "int"
    INTS = "ints"
    BOOL = "bool"
    STR = "str"
    DTYPE = "dtype"
    TENSORS = "tensors"
    INDEX = "index"
    VALUE = "value"


TYPE_DOCS: Final[Mapping[ArgType, str]] = {
    ArgType.TENSOR: "a tensor",
    ArgType.OPERAND: "a tensor or a number",
    ArgType.NUMBER: "a number",
    ArgType.INT: "an int",
    ArgType.INTS: "an int or a tuple of ints",
    ArgType.BOOL: "a bool",
    ArgType.STR: "a string",
    ArgType.DTYPE: "the name of a dtype, such as 'float32'",
    ArgType.TENSORS: "a tuple of tensors",
    ArgType.INDEX: "an int, slice, ..., None, list or tensor, or a tuple of these",
    ArgType.VALUE: "a tensor, a number, or a tuple of these",
}


class Required(Enum):
    """The default of an argument that must be given."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Parameter:
    """One place of a signature. ``variadic`` takes all remaining positional arguments, or one tuple of them."""

    name: str
    type: ArgType
    default: Arg | Literal[Required.REQUIRED] = REQUIRED
    variadic: bool = False
    keyword: bool = False

    def accepts(self, value: object) -> bool:
        """Whether ``value``, an argument or the abstract value of one, may stand here."""
        return _ACCEPTS[self.type](value) or (value is None and self.default is None)

    def __str__(self) -> str:
        default = "" if self.default is REQUIRED or self.variadic else f" = {self.default!r}"
        return f"{'*' if self.variadic else ''}{self.name}: {self.type}{default}"


@dataclass(frozen=True)
class Signature:
    """The name of an operation and its parameters in order."""

    name: str
    parameters: tuple[Parameter, ...]

    def arrange(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()
    ) -> dict[str, Any]:
        """Each parameter's name and what stands there, defaults included; ``ValueError`` for a wrong arity or name."""
        names, variadic = self._positional
        bound = dict(zip(names, args, strict=False))
        rest = args[len(names) :]
        if rest:
            if variadic is None:
                raise ValueError(f"takes {len(names)} arguments, got {len(args)}")
            bound[variadic] = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple) else tuple(rest)
        for name, value in dict(kwargs).items():
            if name not in self._defaults:
                raise ValueError(f"has no argument {name!r}; {nearest(name, self._defaults)}")
            if name in bound:
                raise ValueError(f"argument {name!r} is given twice")
            bound[name] = value
        if len(bound) < len(self._defaults):
            self._complete(bound)
        return bound

    def check(self, bound: Mapping[str, Any]) -> None:
        """``ValueError`` if an argument has the wrong type."""
        for parameter in self.parameters:
            if not parameter.accepts(bound[parameter.name]):
                wanted = TYPE_DOCS[parameter.type]
                raise ValueError(f"argument {parameter.name!r} must be {wanted}, got {describe(bound[parameter.name])}")

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> dict[str, Any]:
        """:meth:`arrange`, then :meth:`check`. References may stand for every tensor and number."""
        bound = self.arrange(args, kwargs)
        self.check(bound)
        return bound

    def __str__(self) -> str:
        parts = [str(p) for p in self.parameters if not p.keyword]
        keywords = [str(p) for p in self.parameters if p.keyword]
        if keywords and not any(p.variadic for p in self.parameters):
            parts.append("*")
        return f"{self.name}({', '.join(parts + keywords)})"

    def _complete(self, bound: dict[str, Any]) -> None:
        for name, default in self._defaults.items():
            if name not in bound:
                if default is REQUIRED:
                    raise ValueError(f"argument {name!r} is missing")
                bound[name] = default

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {p.name: p.default for p in self.parameters}

    @cached_property
    def _positional(self) -> tuple[tuple[str, ...], str | None]:
        variadic = next((p.name for p in self.parameters if p.variadic), None)
        return tuple(p.name for p in self.parameters if not p.keyword and not p.variadic), variadic


def parse_signature(text: str) -> Signature:
    """The signature that ``text`` spells: ``sum(input: tensor, dim: ints = None, *, dtype: dtype = None)``."""
    function = ast.parse(f"def {text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    spec = function.args
    defaults = [REQUIRED] * (len(spec.args) - len(spec.defaults)) + [ast.literal_eval(d) for d in spec.defaults]
    parameters = [_parameter(arg, default) for arg, default in zip(spec.args, defaults, strict=True)]
    if spec.vararg is not None:
        parameters.append(_parameter(spec.vararg, REQUIRED, variadic=True))
    for arg, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        default = REQUIRED if value is None else ast.literal_eval(value)
        parameters.append(_parameter(arg, default, keyword=True))
    return Signature(function.name, tuple(parameters))


def describe(value: object) -> str:
    """``value`` as an error message shows it."""
    if isinstance(value, AbstractTensor):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(describe(item) for item in value)})"
    return "nothing" if value is None else repr(value)


def _parameter(arg: ast.arg, default: Any, *, variadic: bool = False, keyword: bool = False) -> Parameter:
    assert isinstance(arg.annotation, ast.Name)
    return Parameter(arg.arg, ArgType(arg.annotation.id), default, variadic, keyword)


def _is_tensor(value: object) -> bool:
    return isinstance(value, AbstractTensor | NodeRef | ParamRef | TensorRef)


def _is_operand(value: object) -> bool:
    return isinstance(value, AbstractTensor | NodeRef | ParamRef | TensorRef | int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | NodeRef | ParamRef)


def _is_int(value: object) -> bool:
    return type(value) is int or isinstance(value, NodeRef | ParamRef)


def _is_ints(value: object) -> bool:
    return all(_is_int(item) for item in value) if isinstance(value, tuple) else _is_int(value)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool | ParamRef)


def _is_str(value: object) -> bool:
    return isinstance(value, str | ParamRef)


def _is_dtype(value: object) -> bool:
    return isinstance(value, ParamRef) or (isinstance(value, str) and value in ITEM_BYTES)


def _is_tensors(value: object) -> bool:
    return all(_is_tensor(item) for item in value) if isinstance(value, tuple) else isinstance(value, NodeRef)


def _is_index(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_index(item) for item in value)
    if isinstance(value, SliceArg):
        return all(part is None or _is_int(part) for part in (value.start, value.stop, value.step))
    return value is None or isinstance(value, EllipsisType | int) or _is_tensor(value)


def _is_value(value: object) -> bool:
    """A site may give a tuple with items that are no tensors, which are ``None``; others of its items can be picked."""
    return all(item is None or _is_value(item) for item in value) if isinstance(value, tuple) else _is_operand(value)


_ACCEPTS: Final[Mapping[ArgType, Callable[[object], bool]]] = {
    ArgType.TENSOR: _is_tensor,
    ArgType.OPERAND: _is_operand,
    ArgType.NUMBER: _is_number,
    ArgType.INT: _is_int,
    ArgType.INTS: _is_ints,
    ArgType.BOOL: _is_bool,
    ArgType.STR: _is_str,
    ArgType.DTYPE: _is_dtype,
    ArgType.TENSORS: _is_tensors,
    ArgType.INDEX: _is_index,
    ArgType.VALUE: _is_value,
}
