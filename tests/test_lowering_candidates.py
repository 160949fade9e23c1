"""Operators without a row of strop's: as torch decomposes them, or as ``torch.onnx`` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from test_lowering import Wrapped, agree, captured, check, lowered, session, x
from torch import Tensor, nn

from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.torchlib import OneCall, export_call
from strop.compiler.lower.onnx.trial import try_export
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UnsupportedError

Function = Callable[..., Any]
MATRIX = x(4, 6)
OPSET = 23

DECOMPOSED: dict[str, tuple[Function, tuple[Tensor, ...]]] = {
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), (MATRIX, x(4, 6, seed=1))),
    "acosh": (lambda a: torch.acosh(a.abs() + 1), (MATRIX,)),
    "celu": (F.celu, (MATRIX,)),
    "hardshrink": (F.hardshrink, (MATRIX,)),
    "cross": (lambda a, b: torch.linalg.cross(a, b), (x(4, 3), x(4, 3, seed=1))),
    "addcmul": (lambda a, b: torch.addcmul(a, a, b), (MATRIX, x(4, 6, seed=1))),
    "a row that refuses": (lambda a: torch.diff(a, n=2), (MATRIX,)),
    "heaviside": (lambda a: torch.heaviside(a, a * 2), (MATRIX,)),
    "norm of order 3": (lambda a: a.norm(3, dim=-1), (MATRIX,)),
}


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decomposed_at_any_size(name: str) -> None:
    function, inputs = DECOMPOSED[name]
    check(function, *inputs)


def test_values_that_share_their_type_stay_apart() -> None:
    """Passes keep one type for all results that are alike."""

    def function(a: Tensor, b: Tensor) -> Tensor:
        return torch.clamp_min(a.neg(), b.neg())

    inputs = [MATRIX, x(4, 6, seed=1)]
    program = captured(function, inputs, {})
    first, second = program.find(torch.ops.aten.neg.default)
    second.meta["val"] = first.meta["val"]
    model = lower_to_onnx(program, get_target("cpu"), Choices({}))
    agree(function, inputs, session(model))


@pytest.mark.parametrize("call", [
    F.celu, lambda a: torch.copysign(a, -a), lambda a: a.double().acos(),
])  # fmt: skip
def test_what_is_decomposed_costs_no_export(
    call: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", pytest.fail)
    check(call, MATRIX.sigmoid())


def test_a_decomposition_that_branches_on_a_size_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_size(a: Tensor) -> Tensor:
        return a if a.shape[0] % 2 else -a

    monkeypatch.setitem(FORMULAS, torch.ops.aten.special_airy_ai.default, by_size)
    with pytest.raises(UnsupportedError, match="torch does not decompose it at these sizes"):
        lowered(torch.special.airy_ai, [MATRIX], {"a": {0: ("rows", 2, 9)}})


def test_repeated_calls_are_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: calls.append(1) or export(*a, **k))

    def twice(a: Tensor) -> Tensor:
        return torch.diagonal(a, 0, 1, 2) * torch.diagonal(a + 1, 0, 1, 2)

    inputs, axes = [x(3, 4, 4)], {"a": {0: "rows"}}
    lowered(lambda a: torch.diagonal(a, 0, 1, 2), inputs, axes)
    once = len(calls)
    agree(twice, inputs, session(lowered(twice, inputs, axes)))
    assert len(calls) == 2 * once > 0


def test_what_a_candidate_that_gave_up_left_behind_is_not_in_the_file() -> None:
    model = lowered(lambda a: torch.diff(a, n=2), [MATRIX], {"a": {0: "rows"}})
    used = {v for node in model.graph for v in node.inputs} | set(model.graph.outputs)
    assert all(used & set(node.outputs) for node in model.graph)


def call_of(function: Function, *inputs: Tensor) -> tuple[OneCall, list[Tensor], Program]:
    """The only operator of a function, as ``torch.onnx`` is given it, and its inputs' types."""
    model = Model(Wrapped(function).eval(), dict(zip("abc", inputs)))
    signature, example, _ = read_inputs(model)
    program = capture(model.module, signature, example)
    (node,) = program.calls()
    given = list(node.all_input_nodes)
    return OneCall(node, given).eval(), [n.meta["val"] for n in given], program


def test_an_export_that_gives_other_numbers_is_rejected() -> None:
    """``torch.onnx`` counts the first value in a mean that is to leave it out."""

    def mean(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a.scatter_reduce(0, b, c, "mean", include_self=False)

    given = (x(4), torch.tensor([0, 1, 1, 0]), x(4, seed=1))
    module, types, _ = call_of(mean, *given)
    with pytest.raises(NotLowered, match="other numbers than torch"):
        try_export(export_call(module, types, OPSET), module, types)


def test_an_export_that_the_runtime_refuses_is_rejected() -> None:
    module, types, _ = call_of(torch.tan, x(4))
    exported = export_call(module, types, OPSET)
    exported.graph.node(0).op_type = "NoSuchOperator"
    with pytest.raises(NotLowered, match="the runtime refuses what torch.onnx makes of it"):
        try_export(exported, module, types)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(8, 3, mode="sum")

    def forward(self, a: Tensor) -> Tensor:
        result: Tensor = self.bag(a)
        return result


def test_loops_of_an_export_read_the_values_of_the_graph() -> None:
    module = Bag().eval()
    ids = torch.tensor([[1, 2], [3, 7]])
    model = lowered(module, [ids], {})
    assert any(isinstance(a.value, ir.Graph) for n in model.graph for a in n.attributes.values())
    with torch.no_grad():
        agree(module, [ids.flip(0)], session(model))


def test_random_numbers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="rand_like.*draws random numbers"):
        lowered(lambda a: a + torch.rand_like(a), [MATRIX], {})
