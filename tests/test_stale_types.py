"""Types that are made again: written otherwise, but the same at every size, or stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.util.errors import VerifyError

aten = torch.ops.aten


class Positive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


Rows = Callable[[Any], Any]


def retyped(high: int, rows: Rows) -> Program:
    """``x.relu()`` of n = 2 to ``high`` rows, whose type says of another number of rows."""
    model = Model(Positive(), {"x": torch.randn(6, 3)}, dynamic={"x": {0: ("n", 2, high)}})
    signature, example, _ = read_inputs(model)
    program = capture(model.module, signature, example)
    (node,) = program.find(aten.relu.default)
    value = node.meta["val"]
    with value.fake_mode:
        node.meta["val"] = value.new_empty((rows(value.shape[0]), 3))
    return program


@pytest.mark.parametrize(
    "rows", [lambda n: n % 512, lambda n: n // 512 + n, lambda n: n // 4 * 4 + n % 4]
)
def test_a_type_that_says_the_same_at_every_size_is_not_stale(rows: Rows) -> None:
    verify_types(retyped(24, rows))


@pytest.mark.parametrize(
    ("high", "rows"),
    [
        (512, lambda n: n % 512),
        (512, lambda n: n // 512 + n),
        (24, lambda n: n // 4 * 4),
        (24, lambda n: n // 24 + n),
        (24, lambda n: 6),
    ],
)
def test_a_type_that_is_wrong_at_some_size_is_stale(high: int, rows: Rows) -> None:
    with pytest.raises(VerifyError, match=r"%relu = aten.relu .+ is typed f32\[.+, and is"):
        verify_types(retyped(high, rows))


@pytest.mark.parametrize("change", [lambda v: v.double(), lambda v: v[:, 0], lambda v: (v,)])
def test_a_type_of_another_form_is_stale(change: Callable[[Tensor], Any]) -> None:
    program = retyped(24, lambda n: n % 512)
    (node,) = program.find(aten.relu.default)
    node.meta["val"] = change(node.meta["val"])
    with pytest.raises(VerifyError, match="%relu = aten.relu .+ is typed"):
        verify_types(program)


def test_a_size_that_only_the_data_know_is_no_dim() -> None:
    class Some(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.nonzero().relu()

    signature, example, _ = read_inputs(Model(Some(), {"x": torch.randn(6, 3)}))
    program = capture(Some(), signature, example)
    (node,) = program.find(aten.relu.default)
    node.meta["val"] = node.meta["val"][:2]
    with pytest.raises(VerifyError, match="%relu = aten.relu .+ is typed"):
        verify_types(program)
