"""The grammar of einsum equations, and the shapes they give."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ndif_batch.errors import ShapeError
from ndif_batch.graph.shapes import Shape, broadcast

MAX_OPERANDS = 8
MAX_LENGTH = 128
MAX_ELEMENTS = 2**30

_TERM = r"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rf"(?P<inputs>{_TERM}(?:,{_TERM})*)(?:->(?P<output>{_TERM}))?")


@dataclass(frozen=True, slots=True)
class Equation:
    """Letters of each operand and of the result; ``...`` stands in them as one character, ``.``."""

    inputs: tuple[str, ...]
    output: str


@lru_cache(maxsize=1024)
def parse_equation(text: str) -> Equation:
    """The parts of an equation; ``ShapeError`` if it is none."""
    squeezed = text.replace(" ", "")
    match = _EQUATION.fullmatch(squeezed)
    if match is None or len(text) > MAX_LENGTH:
        raise ShapeError(f"{text[:MAX_LENGTH]!r} is no einsum equation of at most {MAX_LENGTH} characters")
    inputs = tuple(match["inputs"].replace("...", ".").split(","))
    letters = "".join(inputs).replace(".", "")
    if len(inputs) > MAX_OPERANDS:
        raise ShapeError(f"einsum takes at most {MAX_OPERANDS} operands, not {len(inputs)}")
    if match["output"] is None:
        dots = "." if "." in "".join(inputs) else ""
        return Equation(inputs, dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1)))
    output = match["output"].replace("...", ".")
    for letter in output:
        if output.count(letter) > 1:
            raise ShapeError(f"{letter!r} stands twice in the result of {text!r}")
        if letter not in letters and letter != ".":
            raise ShapeError(f"{letter!r} in the result of {text!r} stands in no operand")
    return Equation(inputs, output)


def einsum_sizes(equation: Equation, shapes: tuple[Shape, ...]) -> tuple[dict[str, int], Shape]:
    """The length of each letter, and the shape that the dots stand for."""
    if len(shapes) != len(equation.inputs):
        raise ShapeError(f"the equation has {len(equation.inputs)} operands, got {len(shapes)}")
    sizes: dict[str, int] = {}
    dots: Shape = ()
    for term, shape in zip(equation.inputs, shapes, strict=True):
        surplus = len(shape) - len(term.replace(".", ""))
        if surplus < 0 or (surplus and "." not in term):
            raise ShapeError(f"{term.replace('.', '...')!r} does not name the {len(shape)} dimensions of {list(shape)}")
        at = term.find(".") if "." in term else len(term)
        dots = broadcast(dots, shape[at : at + surplus])
        own: dict[str, int] = {}
        for letter, size in zip(term.replace(".", ""), (*shape[:at], *shape[at + surplus :]), strict=True):
            if own.setdefault(letter, size) != size:
                raise ShapeError(f"{letter!r} stands for both {own[letter]} and {size} in {list(shape)}")
            known = sizes.get(letter, 1)
            if 1 not in (known, size) and known != size:
                raise ShapeError(f"{letter!r} stands for both {known} and {size}")
            sizes[letter] = known if size == 1 else size
    return sizes, dots


def einsum_shape(equation: Equation, shapes: tuple[Shape, ...]) -> Shape:
    """The shape of the result; ``ShapeError`` if it, or a product on the way from left to right, is too large."""
    sizes, dots = einsum_sizes(equation, shapes)
    seen: set[str] = set()
    for i, term in enumerate(equation.inputs):
        seen |= set(term)
        later = set("".join(equation.inputs[i + 1 :])) | set(equation.output)
        if i and prod(dots) * prod(sizes[letter] for letter in seen & later if letter != ".") > MAX_ELEMENTS:
            raise ShapeError(f"the product of the first {i + 1} operands has more than {MAX_ELEMENTS:,} elements")
    shape: list[int] = []
    for letter in equation.output:
        shape += dots if letter == "." else [sizes[letter]]
    return tuple(shape)


def einsum_cost(equation: Equation, shapes: tuple[Shape, ...]) -> int:
    """FLOPs of one product over all letters."""
    sizes, dots = einsum_sizes(equation, shapes)
    return max(1, len(shapes)) * prod(sizes.values()) * prod(dots)
