"""Formulas whose number of steps only the data know, lowered and run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from test_lowering import agree, check, lowered, session, x
from torch import Tensor

from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.lower.onnx.formulas.repeat import repeat_while
from strop.compiler.util.errors import UnsupportedError

special = torch.special
AIRY: Any = torch.ops.aten.special_airy_ai.default
DEGREES = torch.tensor([[7.9, -1.0, 2.0, 11.0], [0.0, 1.0, 9.0, 3.0], [5.0, 4.0, 20.0, 6.0]])
POINTS = 1.1 * x(3, 4).tanh()
CALLS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "chebyshev": (special.chebyshev_polynomial_u, (POINTS, DEGREES)),
    "hermite": (special.hermite_polynomial_he, (POINTS, DEGREES)),
    "legendre": (special.legendre_polynomial_p, (POINTS, DEGREES)),
    "one degree": (lambda a: special.shifted_chebyshev_polynomial_w(a, 5), (POINTS,)),
    "one place": (lambda a: special.laguerre_polynomial_l(0.3, a), (DEGREES,)),
    "broadcast": (special.legendre_polynomial_p, (POINTS, DEGREES[0, 2:3])),
    "gamma": (special.gammaincc, (DEGREES.abs() + 0.1, POINTS.abs() * 20)),
}


@pytest.mark.parametrize("name", CALLS)
def test_loops_at_any_size(name: str) -> None:
    function, inputs = CALLS[name]
    check(function, *inputs)


def test_loops_in_float64() -> None:
    inputs = [POINTS.double(), DEGREES.double()]
    run = session(lowered(special.chebyshev_polynomial_v, inputs, {}))
    agree(special.chebyshev_polynomial_v, inputs, run)


def test_loops_of_nothing() -> None:
    axes = {"a": {0: ("rows", 0, 9)}, "b": {0: ("rows", 0, 9)}}
    run = session(lowered(special.legendre_polynomial_p, [POINTS, DEGREES], axes))
    for rows in (0, 2):
        agree(special.legendre_polynomial_p, [POINTS[:rows], DEGREES[:rows]], run)


def _large(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> Tensor:
    return state[0].abs() < 100


def _rows_added(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    (total,), (a,) = state, fixed
    added = 2 * total + a * a.new_ones(a.shape[0] + 1, 1).sum()
    return [torch.where(total.abs() < 100, added, total)]


def _written(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """What torch decomposes into parts that are written one after the other."""
    return [torch.complex(state[0], state[0]).abs()]


def _drawn(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [state[0].abs().bernoulli()]


def test_a_size_that_a_step_computes_is_not_read_outside_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def formula(a: Tensor) -> Tensor:
        (total,) = repeat_while(_large, _rows_added, [a], [a])
        return total - a * a.new_ones(a.shape[0] + 1, 1).sum()

    monkeypatch.setitem(FORMULAS, AIRY, formula)
    values = x(3, 2)
    run = session(lowered(special.airy_ai, [values], {"a": {0: "rows"}}))
    for rows in (3, 1):
        agree(formula, [values[:rows]], run)


@pytest.mark.parametrize("step, reason", [
    (_written, "writes to a tensor by aten.copy_"), (_drawn, "draws random numbers by aten.rand"),
])  # fmt: skip
def test_a_step_that_does_more_than_compute_is_refused(
    step: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def formula(a: Tensor) -> Tensor:
        return repeat_while(_large, step, [a])[0]

    monkeypatch.setitem(FORMULAS, AIRY, formula)
    with pytest.raises(UnsupportedError, match=reason):
        lowered(special.airy_ai, [x(3, 2)], {})


def test_a_body_holds_only_what_it_needs() -> None:
    model = lowered(special.legendre_polynomial_p, [POINTS, DEGREES], {})
    (loop,) = [n for n in model.graph if n.op_type == "Loop"]
    body = loop.attributes["body"].as_graph()
    read = {v for node in body for v in node.inputs} | set(body.outputs)
    assert all(read & set(node.outputs) for node in body)
