"""Size arithmetic: torch's symbolic expressions as ONNX nodes on int64 (or float64) tensors [1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from strop.compiler.lower.onnx.emitter import Emitter

SizeOf = Callable[[Any], Any]
# Of a slice that goes to the last element.
END = 2**63 - 1
FOLDED = {"Add": "Add", "Mul": "Mul", "Max": "Max", "Min": "Min"}
_FLOATS = ("ToFloat", "IntTrueDiv", "FloatTrueDiv", "FloatPow", "Float")
_TO_INTEGER = {
    "TruncToInt": None,
    "FloorToInt": "Floor",
    "CeilToInt": "Ceil",
    "RoundToInt": "Round",
}
_UNARY = "OpaqueUnaryFn_"


def is_float(expr: Any) -> bool:
    """Whether an expression is a float in torch (``seq / 2``), not a size."""
    kind = type(expr).__name__
    if kind in _TO_INTEGER:
        return False
    return kind in _FLOATS or kind.startswith(_UNARY) or any(is_float(a) for a in expr.args)


def emit_size(on: Emitter, expr: Any, size: SizeOf) -> Any:
    """Emit the outermost operation of an expression; ``size`` gives its arguments.

    Returns None where ONNX has no such operation.
    """
    kind = type(expr).__name__
    if kind in FOLDED or kind in ("Pow", "PowByNatural", "FloatPow"):
        return _fold(on, FOLDED.get(kind, "Pow"), expr, size)
    if kind in ("CleanDiv", "FloorDiv", "Mod", "PythonMod"):
        return _integer_division(on, expr, *(size(a) for a in expr.args))
    if kind in ("IntTrueDiv", "FloatTrueDiv"):
        return on.op("Div", *(_double(on, a, size) for a in expr.args))
    if kind == "ToFloat":
        return _double(on, expr.args[0], size)
    if kind in _TO_INTEGER:
        value, rounding = _double(on, expr.args[0], size), _TO_INTEGER[kind]
        return on.cast(on.op(rounding, value) if rounding else value, torch.int64)
    if kind.startswith(_UNARY):
        name = kind.removeprefix(_UNARY).capitalize()
        return on.op(name, _double(on, expr.args[0], size))
    return None


def _double(on: Emitter, expr: Any, size: SizeOf) -> Any:
    return size(expr) if is_float(expr) else on.cast(size(expr), torch.float64)


def _fold(on: Emitter, op_type: str, expr: Any, size: SizeOf) -> Any:
    parts = [_double(on, a, size) if is_float(expr) else size(a) for a in expr.args]
    result = parts[0]
    for part in parts[1:]:
        result = on.op(op_type, result, part)
    return result


def _integer_division(on: Emitter, expr: Any, a: Any, b: Any) -> Any:
    if "Mod" in type(expr).__name__:
        return on.op("Mod", a, b)
    # ONNX Div truncates towards zero; below it, taking the remainder off first makes it floor.
    negative = any(not part.is_nonnegative for part in expr.args)
    return on.op("Div", on.op("Sub", a, on.op("Mod", a, b)) if negative else a, b)
