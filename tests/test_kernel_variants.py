"""What a kernel is compiled for, made of launches with real and fake tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    StrictMinMaxConstraint,
)
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from strop.kernels.examples import tensor
from strop.kernels.kernel import Configuration, Launch
from strop.kernels.launching import recording
from strop.kernels.norm import NORM, norm
from strop.kernels.specialization import variant_of
from strop.kernels.variant import Variant

TILE = Configuration({"ROWS": 1}, num_warps=4)


def variant(**arguments: Any) -> Variant:
    return variant_of(Launch(NORM, arguments, {}), TILE)


def symbolic(*shape: int, most: Any = int_oo) -> Tensor:
    """A fake float16 tensor whose first size is a symbol."""
    fixed = len(shape) - 1
    context = StatelessSymbolicContext(
        [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * fixed,
        constraint_sizes=[StrictMinMaxConstraint(warn_only=False, vr=ValueRanges(2, most))]
        + [None] * fixed,
    )
    real = torch.empty(shape, dtype=torch.float16)
    made = FakeTensorMode(shape_env=ShapeEnv()).from_tensor(real, symbolic_context=context)
    assert isinstance(made.shape[0], torch.SymInt)
    return made


def recorded(x: Tensor) -> Launch:
    with recording() as launches:
        norm(x, None, None, None, 1e-5, rms=True)
    (made,) = launches
    assert isinstance(made, Launch)
    return made


def test_real_tensors_and_numbers() -> None:
    x = torch.empty(40, dtype=torch.int8)
    found = variant(x=x, moved=x[1:], bias=None, rows=48, columns=5, big=2**31, eps=1e-5)
    assert found.types == (
        ("x", "*i8"), ("moved", "*i8"), ("bias", "none"),
        ("rows", "i32"), ("columns", "i32"), ("big", "i64"), ("eps", "fp32"),
    )  # fmt: skip
    assert found.aligned == ("x", "rows", "big")


def test_numbers_of_31_bits_are_short() -> None:
    found = variant(most=2**31 - 1, least=1 - 2**31, below=-(2**31))
    assert dict(found.types) == {"most": "i32", "least": "i32", "below": "i64"}


def test_tensors_without_memory_are_aligned_by_their_offset() -> None:
    x = tensor(4, 20)
    assert variant(x=x, near=x[1:], far=x[2:]).aligned == ("x", "far")
    y = symbolic(4, 20)
    assert variant(x=y, near=y[1:], far=y[2:]).aligned == ("x", "far")


def test_symbolic_sizes() -> None:
    found = variant_of(recorded(symbolic(3, 64)), TILE)
    types = dict(found.types)
    assert types["x"] == types["y"] == "*fp16"
    assert types["rows"] == types["columns"] == "i32"
    assert types["residual"] == "none"
    # How many rows there are is not known; how far they lie apart is.
    assert set(found.aligned) == {"x", "y", "columns", "x_stride", "residual_stride"}


def test_a_multiple_of_a_symbol_is_aligned_where_that_is_proven() -> None:
    rows = symbolic(3, 64).shape[0]
    assert variant(even=rows * 32, odd=rows * 24).aligned == ("even",)


def test_the_size_that_configurations_are_chosen_by_is_never_aligned() -> None:
    kernel = replace(NORM, axis="rows")
    found = variant_of(Launch(kernel, {"rows": 64, "columns": 64}, {}), TILE)
    assert found.aligned == ("columns",)


def test_a_number_that_may_exceed_31_bits_is_long() -> None:
    bounded, free = symbolic(3, 64, most=2**20).shape[0], symbolic(3, 64).shape[0]
    found = dict(variant(short=bounded * 2**10, long=bounded * 2**11, free=free).types)
    assert found == {"short": "i32", "long": "i64", "free": "i32"}


def test_one_that_is_the_same_for_all_sizes_is_a_plain_number() -> None:
    rows = symbolic(3, 64).shape[0]
    assert dict(variant(n=rows - rows + 2**31).types) == {"n": "i64"}


@pytest.mark.parametrize("value", [True, "text", torch.zeros(1, dtype=torch.complex64)], ids=str)
def test_other_arguments_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="argument mask is"):
        variant(mask=value)


def test_equal_variants_have_equal_names_and_others_do_not() -> None:
    first, again = (variant_of(recorded(tensor(4, 64)), TILE) for _ in range(2))
    assert first == again and hash(first) == hash(again) and first.name == again.name
    kernel, _, code = first.name.partition("-")
    assert kernel == "norm" and len(code) == 8
    others = [
        variant_of(recorded(tensor(4, 128)), TILE),
        variant_of(recorded(tensor(16, 64)), TILE),
        variant_of(recorded(tensor(4, 64, dtype=torch.float32)), TILE),
        variant_of(recorded(tensor(4, 64)), Configuration({"ROWS": 1}, num_warps=8)),
        variant_of(recorded(tensor(4, 64)), Configuration({"ROWS": 1}, num_stages=2)),
    ]
    assert len({first.name, *(other.name for other in others)}) == 1 + len(others)


def test_a_variant_survives_json() -> None:
    found = variant_of(recorded(tensor(4, 64)), TILE)
    assert Variant.from_json(json.loads(json.dumps(found.to_json()))) == found
