"""How strides of attention heads are told to kernels."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from strop.kernels.examples import tensor
from strop.kernels.heads import head_block, strides, vector


@pytest.mark.parametrize(
    ("size", "dtype", "most"),
    [
        (64, torch.float16, 8),
        (72, torch.bfloat16, 8),
        (20, torch.float16, 4),
        (50, torch.float16, 2),
        (65, torch.float16, 1),
        (72, torch.float32, 4),
        (64, torch.int8, 16),
        (72, torch.int8, 8),
    ],
)
def test_rows_begin_at_multiples_of_up_to_sixteen_bytes(
    size: int, dtype: torch.dtype, most: int
) -> None:
    x = tensor(2, 3, 5, size, dtype=dtype)
    assert vector(x) == most
    assert strides("x", x, most) == {
        "x_batch_stride": 15 * size // most,
        "x_head_stride": 5 * size // most,
        "x_stride": size // most,
    }


def test_all_strides_of_all_tensors_count() -> None:
    assert vector(tensor(2, 3, 5, 64), tensor(2, 3, 5, 20)) == 4
    assert vector(tensor(2, 3, 5, 66)[..., :64]) == 2


def test_a_stride_that_is_not_known_counts_as_what_is_proven() -> None:
    mode = FakeTensorMode(shape_env=ShapeEnv())
    dynamic = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.STATIC, DimDynamic.DYNAMIC, DimDynamic.DYNAMIC]
    )
    x = mode.from_tensor(torch.empty(2, 3, 64, dtype=torch.float16), symbolic_context=dynamic)
    with mode:
        assert vector(torch.empty(2, x.shape[1], 5, 24, dtype=torch.float16)) == 8
        assert vector(x[:, None]) == 1


def test_columns_of_a_program() -> None:
    assert [head_block(tensor(size)) for size in (1, 16, 17, 80, 256)] == [16, 16, 32, 128, 256]
