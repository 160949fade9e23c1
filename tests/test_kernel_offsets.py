"""Kernels on tensors whose rows begin more than 2^31 elements behind the first.

The inputs are views of memory that is reserved and, but for these rows, never touched.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import close, device, need_gpu, random
from torch import Tensor

from strop.compiler.ir.dialect.attention import attention as attention_operator
from strop.compiler.ir.dialect.rotary import rotary as rotary_operator
from strop.kernels.attention import attention
from strop.kernels.decode_attention import decode_attention
from strop.kernels.embedding_norm import embedding_norm
from strop.kernels.norm import norm
from strop.kernels.quantize_rows import quantize_rows
from strop.kernels.rotary import rotary
from strop.kernels.rotary_cache import rotary_cache
from strop.kernels.softmax import softmax

EPS = 1e-5
# Less than 2^31, so that the stride itself is a number of 32 bits.
APART = 2**30
COLUMNS = 32


def far_apart(rows: int = 3) -> Tensor:
    """Rows of which the third begins behind 2^31 elements; all of them hold random numbers."""
    whole = torch.empty((rows - 1) * APART + COLUMNS, dtype=torch.float16, device=device())
    return whole.as_strided((rows, COLUMNS), (APART, 1)).copy_(random(rows, COLUMNS))


def test_rows_that_are_normalized() -> None:
    x, more = far_apart(), far_apart()
    y, _, _, _ = norm(x, more, None, None, EPS, rms=False)
    assert y is not None
    close(y, F.layer_norm((x + more).double(), (COLUMNS,), eps=EPS))


def test_rows_that_are_rounded() -> None:
    x = far_apart()
    q, scale = quantize_rows(x)
    close(q.float() * scale[:, None], x.double(), tolerance=0.004)


def test_rows_of_a_softmax() -> None:
    x = far_apart()
    close(softmax(x), torch.softmax(x.double(), 1))


def test_rows_of_a_table() -> None:
    table = far_apart()
    found = embedding_norm(
        [torch.tensor([2, 0, 1], dtype=torch.int32, device=device())],
        [table], None, None, EPS, rms=True, norm=False,
    )  # fmt: skip
    assert torch.equal(found, table[[2, 0, 1]])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_heads_that_are_rotated(axis: int) -> None:
    shape = [1, 1, 1]
    shape[axis] = 3
    rows = far_apart()
    strides = [APART if n == 3 else 0 for n in shape]
    x = rows.as_strided((*shape, COLUMNS), (*strides, 1))
    turned = random(1, shape[2], COLUMNS // 2)
    y = rotary(x, turned.cos(), turned.sin(), packed=False)
    cos, sin = turned.cos().double(), turned.sin().double()
    close(y, rotary_operator(x.double(), cos, sin, shape[1]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_heads_that_attend(axis: int) -> None:
    shape = [1, 1, 1]
    shape[axis] = 3
    strides = [APART if n == 3 else 0 for n in shape]
    q, k, v = (far_apart().as_strided((*shape, COLUMNS), (*strides, 1)) for _ in range(3))
    mask = far_apart()[None, :, None, :3].transpose(axis if axis < 2 else 2, 1)
    out = attention(q, k, v, mask[..., : shape[2]], 0.2, causal=False, packed=False)
    parts = (t.double() for t in (q, k, v, mask[..., : shape[2]]))
    close(out, attention_operator(*parts, shape[1], shape[1], 0.2, False))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_caches_that_are_attended_to(axis: int) -> None:
    shape = [1, 1, 1]
    shape[axis] = 3
    strides = [APART if n == 3 else 0 for n in shape]
    k, v = (far_apart().as_strided((*shape, COLUMNS), (*strides, 1)) for _ in range(2))
    q = random(shape[0], shape[1], COLUMNS, dtype=torch.float16, seed=1)
    lengths = torch.full((shape[0],), shape[2], dtype=torch.int32, device=device())
    parts = (t.double() for t in (q[:, :, None], k, v))
    wanted = attention_operator(*parts, None, shape[1], shape[1], 0.2, False)
    close(decode_attention(q, k, v, lengths, 0.2), wanted[:, :, 0])


def test_rows_of_a_cache() -> None:
    k_cache, v_cache = far_apart()[None, None], far_apart()[None, None]
    x = random(1, 1, 1, COLUMNS, dtype=torch.float16)
    one, none = x.new_ones(1, 1, COLUMNS // 2), x.new_zeros(1, 1, COLUMNS // 2)
    place = torch.tensor([[2]], dtype=torch.int32, device=device())
    rotary_cache(x, x, x, one, none, k_cache, v_cache, place)
    for cache in (k_cache, v_cache):
        assert torch.equal(cache[0, 0, 2], x[0, 0, 0])
        assert torch.equal(cache[0, 0, :2], random(3, COLUMNS, dtype=torch.float16)[:2])


def test_results_of_more_than_two_to_the_31_elements() -> None:
    need_gpu("results of 4 GB, and as many programs")
    columns = 2**14
    row = random(1, columns, dtype=torch.float16)
    x = row.expand(2**17 + 3, columns)
    y, _, q, _ = norm(x, None, None, None, EPS, rms=True, quantize=True)
    assert y is not None and q is not None
    close(y[:1], F.rms_norm(row.double(), (columns,), eps=EPS))
    index = torch.zeros(len(x), dtype=torch.int64, device=device())
    found = [y, q, quantize_rows(x)[0], softmax(x)]
    found.append(embedding_norm([index], [row], None, None, EPS, rms=True, norm=False))
    for result in found:
        assert torch.equal(result[-1], result[0]) and torch.equal(result[2**17], result[0])
