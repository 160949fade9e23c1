"""Programs under autocast, as a trainer that computes in bfloat16 runs them."""

from __future__ import annotations

import torch
from program_tools import program_of
from torch import Tensor

from strop.compiler.ir.program import Program


def attention() -> Program:
    """A product and an attention of its result with itself; both are outputs."""

    def function(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        y = x @ w
        return y, torch.nn.functional.scaled_dot_product_attention(y, y, y)

    torch.manual_seed(0)
    return program_of(function, torch.randn(2, 4, 8, 16), w=torch.randn(16, 16))


def test_attention_is_in_float32_where_products_are_in_bfloat16() -> None:
    program, x = attention(), torch.randn(2, 4, 8, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        product, attended = program.run(input_0=x)
    assert (product.dtype, attended.dtype) == (torch.bfloat16, torch.float32)
    wide = product.float()
    wanted = torch.nn.functional.scaled_dot_product_attention(wide, wide, wide)
    assert torch.equal(attended, wanted)
    attended.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


def test_without_autocast_a_program_computes_in_its_own_dtypes() -> None:
    product, attended = attention().run(input_0=torch.randn(2, 4, 8, 16))
    assert product.dtype == attended.dtype == torch.float32
