"""Compare what ``torch.onnx`` made of one operator with torch itself, in the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from strop.compiler.lower.onnx.refusal import NotLowered, root_cause

# A dynamic dim takes one size in the first trial, and another in the second.
TRIALS = (3, 6)
# What the runtime's kernels of one operator may differ by, relative to the largest value.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
FATAL = 4


def try_export(model: ir.Model, module: nn.Module, types: Sequence[Tensor]) -> None:
    """Run a one-operator model and torch on the same values, at two sets of sizes.

    Args:
        model: takes tensors of these types.
        module: what it was made from.
        types: fake tensors whose dynamic sizes are symbols.

    Raises:
        NotLowered: the runtime refuses the model, or gives something else than torch.
    """
    session = _session(model)
    names = [i.name for i in model.graph.inputs]
    tried = False
    for values in sample_values(types):
        wanted = _by_torch(module, values)
        if wanted is None:
            continue
        tried = True
        feeds = {n: v.numpy() for n, v in zip(names, values)}
        kept = {i.name for i in session.get_inputs()}
        try:
            found = session.run(None, {n: a for n, a in feeds.items() if n in kept})
        except Exception as error:  # the runtime's exceptions have no family
            raise NotLowered(f"what torch.onnx makes of it does not run: {_said(error)}") from error
        if not all(map(_near, found, wanted)) or len(found) != len(wanted):
            raise NotLowered("what torch.onnx makes of it gives other numbers than torch")
    if not tried:
        raise NotLowered(
            "what torch.onnx makes of it cannot be tried: torch takes no sample values"
        )


def _session(model: ir.Model) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    data = ir.to_proto(model).SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no family
        raise NotLowered(
            f"the runtime refuses what torch.onnx makes of it: {_said(error)}"
        ) from error


def _said(error: Exception) -> str:
    return root_cause(error).removeprefix("[ONNXRuntimeError] : ")


def sample_values(types: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Values of these types: random floats at each set of sizes, with two kinds of integers.

    Integers may be indices: 0 or 1, and 0 alone where 1 is none.
    """
    generator = torch.Generator().manual_seed(0)
    for first in TRIALS:
        for most in (1, 0):
            yield [_random(_sizes(t, first), t.dtype, most, generator) for t in types]


def _sizes(value: Tensor, first: int) -> list[int]:
    """The sizes with numbers for symbols: different ones for different symbols, within ranges."""
    return [_number(s, first) if isinstance(s, torch.SymInt) else int(s) for s in value.shape]


def _number(size: torch.SymInt, first: int) -> int:
    expr, ranges = size.node.expr, size.node.shape_env.var_to_range
    order = {symbol: i for i, symbol in enumerate(sorted(ranges, key=str))}
    wanted = {s: first + 2 * order[s] for s in expr.free_symbols}
    within = {
        s: n if ranges[s].lower <= n <= ranges[s].upper else int(ranges[s].lower)
        for s, n in wanted.items()
    }
    return int(expr.subs(within))


def _random(shape: list[int], dtype: torch.dtype, most: int, generator: torch.Generator) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, most + 1, shape, generator=generator).to(dtype)


def _by_torch(module: nn.Module, values: Sequence[Tensor]) -> list[Tensor] | None:
    """What torch gives; None where it does not take the values."""
    try:
        with torch.no_grad():
            result = module(*(v.clone() for v in values))
    except Exception:  # sample values need not be valid: torch says whether they are
        return None
    return [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]


def _near(found: Any, wanted: Tensor) -> bool:
    want = wanted.numpy()
    if found.dtype != want.dtype or found.shape != want.shape:
        return False
    if wanted.dtype not in TOLERANCE:
        return bool(np.array_equal(found, want))
    within = TOLERANCE[wanted.dtype]
    return bool(np.allclose(found, want, rtol=within, atol=within, equal_nan=True))
