"""What parameters and recorded values have in common: Python's operators and torch's functions are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ndif_batch.trace import active
from ndif_batch.trace.place import refusal


def _binary(name: str) -> Callable[[Operand, Any], Any]:
    return lambda self, other: self._apply(name, self, other)


def _reflected(name: str) -> Callable[[Operand, Any], Any]:
    return lambda self, other: self._apply(name, other, self)


def _unary(name: str) -> Callable[[Operand], Any]:
    return lambda self: self._apply(name, self)


def _no(what: str, hint: str) -> Callable[..., Any]:
    def refuse(self: Operand, *args: object) -> Any:
        raise refusal(f"{what}: {self!r} has no value while the experiment is recorded", hint=hint)

    return refuse


_BRANCH = "choose between values with torch.where(condition, a, b), or make the choice an axis: param(...)"
_LOOP = "index it; a loop over cases is a parameter axis, one over generation steps is `steps`"
_NUMBER = "leave it in the experiment and .save it, or make it a parameter: param(...)"


class Operand:
    """Stands for a value that exists only when a task runs. What is done with it becomes nodes of the graph."""

    __slots__ = ()
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def _apply(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return active.recorder().apply(name, args, kwargs)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return active.recorder().apply_torch(func, args, kwargs or {})

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("sub"), _reflected("sub")
    __mul__, __rmul__ = _binary("mul"), _reflected("mul")
    __truediv__, __rtruediv__ = _binary("truediv"), _reflected("truediv")
    __floordiv__, __rfloordiv__ = _binary("floordiv"), _reflected("floordiv")
    __mod__, __rmod__ = _binary("mod"), _reflected("mod")
    __pow__, __rpow__ = _binary("pow"), _reflected("pow")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __and__, __rand__ = _binary("and"), _reflected("and")
    __or__, __ror__ = _binary("or"), _reflected("or")
    __eq__ = _binary("eq")
    __ne__ = _binary("ne")
    __lt__, __le__ = _binary("lt"), _binary("le")
    __gt__, __ge__ = _binary("gt"), _binary("ge")
    __neg__, __abs__, __invert__ = _unary("neg"), _unary("abs"), _unary("invert")

    def __pos__(self) -> Any:
        return self

    def __round__(self, digits: int | None = None) -> Any:
        return self._apply("round", self) if digits is None else self._apply("round", self, decimals=digits)

    __bool__ = _no("`if`, `while`, `and`, `or` and `not` need to know a value now", _BRANCH)
    __iter__ = _no("a loop or unpacking needs to know a length now", _LOOP)
    __len__ = _no("len() needs to know a length now", "count from the end with negative positions, or see t.scan(...)")
    __int__ = _no("int() needs to know a value now", _NUMBER)
    __float__ = _no("float() needs to know a value now", _NUMBER)
    __complex__ = _no("complex() needs to know a value now", _NUMBER)
    __index__ = _no("a plain Python index or range() needs to know a value now", _NUMBER)
    __array__ = _no("numpy needs to know a value now", "use torch's functions or Python's operators")
    __contains__ = _no("`in` needs to know a value now", "compare and reduce: (x == value).any()")
