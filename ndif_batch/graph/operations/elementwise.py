"""Elementwise operations: arithmetic, comparisons, functions of one number, activations."""

from __future__ import annotations

from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import DEFAULT_FLOAT, FLOATS, Operand, result_type
from ndif_batch.graph.numbers import calculate
from ndif_batch.graph.operations.costs import elementwise, free, transcendental
from ndif_batch.graph.operations.operation import Operation, Rule, pure
from ndif_batch.graph.shapes import broadcast, require_float, require_same_dtype

Tensor: TypeAlias = AbstractTensor


def _shape(*operands: Operand) -> tuple[int, ...]:
    return broadcast(*[operand.shape for operand in operands if isinstance(operand, AbstractTensor)])


def _arithmetic(name: str, *, bools: bool = True, divides: bool = False) -> Rule:
    """The rule of a binary operator; ``bools``: whether it takes them, ``divides``: whether integers give floats."""

    def rule(input: Operand, other: Operand) -> Abstract:
        if not isinstance(input, AbstractTensor) and not isinstance(other, AbstractTensor):
            return calculate(name, input, other)
        dtype = result_type(input, other)
        if divides and dtype not in FLOATS:
            dtype = DEFAULT_FLOAT
        if dtype == "bool" and not bools:
            raise ShapeError(f"{name} does not take bools; cast them")
        if name in ("floordiv", "mod") and dtype not in FLOATS and other is not input and other in (0, False):
            raise ShapeError("division of integers by zero")
        return Tensor(_shape(input, other), dtype)

    return rule


_difference = _arithmetic("sub")
_power = _arithmetic("pow", bools=False)


def _sub(input: Operand, other: Operand) -> Abstract:
    result = _difference(input, other)
    for operand in (input, other) if isinstance(result, AbstractTensor) else ():
        if isinstance(operand, bool) or (isinstance(operand, AbstractTensor) and operand.dtype == "bool"):
            raise ShapeError("sub does not take bools; use logical_not or logical_xor, or cast them")
    return result


def _pow(input: Operand, other: Operand) -> Abstract:
    result = _power(input, other)
    if isinstance(result, AbstractTensor) and result.dtype not in FLOATS and isinstance(other, int) and other < 0:
        raise ShapeError("integers have no negative integer powers; cast to a float")
    return result


def _comparison(name: str) -> Rule:
    def rule(input: Operand, other: Operand) -> Abstract:
        if not isinstance(input, AbstractTensor) and not isinstance(other, AbstractTensor):
            return calculate(name, input, other)
        return Tensor(_shape(input, other), "bool")

    return rule


def _signed(name: str) -> Rule:
    def rule(input: Operand) -> Abstract:
        if not isinstance(input, AbstractTensor):
            return calculate(name, input)
        if input.dtype == "bool":
            raise ShapeError(f"{name} does not take bools; cast them")
        return input

    return rule


def _same(input: Tensor) -> Abstract:
    return input


def _no_bools(input: Tensor) -> Abstract:
    if input.dtype == "bool":
        raise ShapeError("bools have no such function; cast them")
    return input


def _square(input: Tensor) -> Abstract:
    return Tensor(input.shape, "int64") if input.dtype == "bool" else input


def _to_float(input: Tensor) -> Abstract:
    return input if input.dtype in FLOATS else Tensor(input.shape, DEFAULT_FLOAT)


def _floats_only(input: Tensor) -> Abstract:
    require_float("input", input)
    return input


def _predicate(input: Tensor) -> Abstract:
    return Tensor(input.shape, "bool")


def _logical(input: Tensor, other: Tensor) -> Abstract:
    return Tensor(broadcast(input.shape, other.shape), "bool")


def _bitwise(input: Operand, other: Operand) -> Abstract:
    if not isinstance(input, AbstractTensor) and not isinstance(other, AbstractTensor):
        raise ShapeError("one of the operands must be a tensor")
    dtype = result_type(input, other)
    if dtype in FLOATS:
        raise ShapeError(f"bits of {dtype} cannot be combined")
    return Tensor(_shape(input, other), dtype)


def _bitwise_not(input: Tensor) -> Abstract:
    if input.dtype in FLOATS:
        raise ShapeError(f"bits of {input.dtype} cannot be inverted")
    return input


def _promoted(input: Tensor, other: Tensor) -> Abstract:
    return Tensor(broadcast(input.shape, other.shape), result_type(input, other))


def _where(condition: Tensor, input: Operand, other: Operand) -> Abstract:
    if condition.dtype != "bool":
        raise ShapeError(f"condition must be bool, not {condition.dtype}")
    return Tensor(_shape(condition, input, other), result_type(input, other))


def _clamp(input: Tensor, min: Operand | None, max: Operand | None) -> Abstract:
    bounds = [bound for bound in (min, max) if bound is not None]
    if not bounds:
        raise ShapeError("clamp needs min or max")
    if len({isinstance(bound, AbstractTensor) for bound in bounds}) > 1:
        raise ShapeError("min and max must both be tensors or both be numbers")
    dtype = result_type(input, *bounds)
    if dtype == "bool":
        raise ShapeError("clamp does not take bools; cast them")
    return Tensor(_shape(input, *bounds), dtype)


def _lerp(input: Tensor, end: Tensor, weight: Operand) -> Abstract:
    require_float("input", input)
    tensors = {"input": input, "end": end}
    if isinstance(weight, AbstractTensor):
        tensors["weight"] = weight
    return Tensor(_shape(input, end, weight), require_same_dtype(**tensors))


def _gelu(input: Tensor, approximate: str) -> Abstract:
    if approximate not in ("none", "tanh"):
        raise ShapeError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
    return _floats_only(input)


def _activation(input: Tensor, **options: float) -> Abstract:
    return _floats_only(input)


def _nan_to_num(input: Tensor, nan: float | None, posinf: float | None, neginf: float | None) -> Abstract:
    return input


def _round(input: Tensor, decimals: int) -> Abstract:
    if decimals and input.dtype not in FLOATS:
        raise ShapeError("decimals needs floating-point numbers")
    return _no_bools(input)


def _isclose(input: Tensor, other: Tensor, rtol: float, atol: float, equal_nan: bool) -> Abstract:
    require_same_dtype(input=input, other=other)
    return _logical(input, other)


def _operators() -> tuple[Operation, ...]:
    binary = "(input: operand, other: operand)"
    return (
        pure(f"add{binary}", _arithmetic("add"), "`input + other`"),
        pure(f"sub{binary}", _sub, "`input - other`"),
        pure(f"mul{binary}", _arithmetic("mul"), "`input * other`"),
        pure(f"truediv{binary}", _arithmetic("truediv", divides=True), "`input / other`"),
        pure(f"floordiv{binary}", _arithmetic("floordiv", bools=False), "`input // other`"),
        pure(f"mod{binary}", _arithmetic("mod", bools=False), "`input % other`, with the sign of `other`"),
        pure(f"pow{binary}", _pow, "`input ** other`", price=transcendental),
        pure("neg(input: operand)", _signed("neg"), "`-input`"),
        pure("abs(input: operand)", _signed("abs"), "Absolute value"),
        pure(f"eq{binary}", _comparison("eq"), "`input == other`"),
        pure(f"ne{binary}", _comparison("ne"), "`input != other`"),
        pure(f"lt{binary}", _comparison("lt"), "`input < other`"),
        pure(f"le{binary}", _comparison("le"), "`input <= other`"),
        pure(f"gt{binary}", _comparison("gt"), "`input > other`"),
        pure(f"ge{binary}", _comparison("ge"), "`input >= other`"),
    )


def _selections() -> tuple[Operation, ...]:
    both = "(input: tensor, other: tensor)"
    bits = "(input: operand, other: operand)"
    return (
        pure(f"logical_and{both}", _logical, "True where both are not zero"),
        pure(f"logical_or{both}", _logical, "True where one is not zero"),
        pure(f"logical_xor{both}", _logical, "True where exactly one is not zero"),
        pure("logical_not(input: tensor)", _predicate, "True where the input is zero"),
        pure(f"bitwise_and{bits}", _bitwise, "`input & other`"),
        pure(f"bitwise_or{bits}", _bitwise, "`input | other`"),
        pure(f"bitwise_xor{bits}", _bitwise, "`input ^ other`"),
        pure("bitwise_not(input: tensor)", _bitwise_not, "`~input`"),
        pure("where(condition: tensor, input: operand, other: operand)", _where, "`input` where true, else `other`"),
        pure(f"maximum{both}", _promoted, "The greater of two, elementwise"),
        pure(f"minimum{both}", _promoted, "The smaller of two, elementwise"),
        pure("clamp(input: tensor, min: operand = None, max: operand = None)", _clamp, "Limits values to an interval"),
        pure("lerp(input: tensor, end: tensor, weight: operand)", _lerp, "`input + weight * (end - input)`"),
        pure(
            "isclose(input: tensor, other: tensor, rtol: number = 1e-5, atol: number = 1e-8, equal_nan: bool = False)",
            _isclose,
            "Whether two values are close",
        ),
        pure("isnan(input: tensor)", _predicate, "Whether values are NaN"),
        pure("isinf(input: tensor)", _predicate, "Whether values are infinite"),
        pure("isfinite(input: tensor)", _predicate, "Whether values are finite"),
        pure(
            "nan_to_num(input: tensor, nan: number = None, posinf: number = None, neginf: number = None)",
            _nan_to_num,
            "Replaces NaN and infinities",
        ),
        pure("clone(input: tensor)", _same, "The value itself", price=elementwise),
        pure("detach(input: tensor)", _same, "The value, through which no gradient flows", price=free),
    )


_TO_FLOAT = {
    "exp": "e to the power of the input",
    "exp2": "2 to the power of the input",
    "expm1": "`exp(input) - 1`, exact near zero",
    "log": "Natural logarithm",
    "log2": "Logarithm to base 2",
    "log10": "Logarithm to base 10",
    "log1p": "`log(1 + input)`, exact near zero",
    "sqrt": "Square root",
    "rsqrt": "`1 / sqrt(input)`",
    "reciprocal": "`1 / input`",
    "sigmoid": "Logistic function",
    "tanh": "Hyperbolic tangent",
    "sin": "Sine",
    "cos": "Cosine",
    "tan": "Tangent",
    "atan": "Inverse tangent",
    "erf": "Error function",
}

_ROUNDING = {"floor": "Rounds down", "ceil": "Rounds up", "trunc": "Rounds towards zero"}

_ACTIVATIONS = {
    "silu(input: tensor)": "`input * sigmoid(input)`",
    "logsigmoid(input: tensor)": "`log(sigmoid(input))`",
    "softplus(input: tensor, beta: number = 1.0, threshold: number = 20.0)": "`log(1 + exp(beta * input)) / beta`",
    "leaky_relu(input: tensor, negative_slope: number = 0.01)": "`input`, scaled where it is negative",
    "elu(input: tensor, alpha: number = 1.0)": "`input`, `alpha * (exp(input) - 1)` where it is negative",
}


def _functions() -> tuple[Operation, ...]:
    return (
        *(pure(f"{name}(input: tensor)", _to_float, doc, price=transcendental) for name, doc in _TO_FLOAT.items()),
        *(pure(f"{name}(input: tensor)", _no_bools, doc) for name, doc in _ROUNDING.items()),
        pure("round(input: tensor, *, decimals: int = 0)", _round, "Rounds to the nearest, halves to even"),
        pure("sign(input: tensor)", _same, "-1, 0 or 1"),
        pure("square(input: tensor)", _square, "`input * input`"),
        pure("relu(input: tensor)", _no_bools, "`max(input, 0)`"),
        pure("gelu(input: tensor, *, approximate: str = 'none')", _gelu, "`input * Φ(input)`", price=transcendental),
        *(pure(signature, _activation, doc, price=transcendental) for signature, doc in _ACTIVATIONS.items()),
    )


ELEMENTWISE = (*_operators(), *_selections(), *_functions())
