"""What holds of the row kernels for all shapes and strides: examples are drawn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import close, device, float_dtypes, guarded, need_fused_products, random
from torch import Tensor

from strop.compiler.ir.dialect.kernels.int8 import quantize_rows as int8_operator
from strop.compiler.ir.dialect.rotary import rotary as rotary_operator
from strop.kernels.embedding_norm import embedding_norm
from strop.kernels.norm import norm
from strop.kernels.quantize_rows import quantize_rows
from strop.kernels.rotary import rotary
from strop.kernels.rotary_cache import rotary_cache
from strop.kernels.softmax import softmax

EPS = 1e-5
DTYPES = st.sampled_from(float_dtypes())
# Near the sizes at which programs, loads or configurations change, and in between.
COLUMNS = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 128, 129, 256, 300, 513]))
# On a GPU most examples are compiled anew, which takes about a second each.
drawn = settings(max_examples=25 if device() == "cpu" else 8)


@st.composite
def rows_of_numbers(draw: st.DrawFn, least: int = 0) -> Tensor:
    """[rows, columns] of any scale, with rows that lie apart, repeat, or run backwards."""
    rows, columns = draw(st.integers(least, 20)), draw(COLUMNS)
    scale = draw(st.sampled_from([1e-3, 1.0, 100.0]))
    step, skipped = draw(st.integers(1, 2)), draw(st.integers(0, 9))
    x = scale * random(rows * step, skipped + columns, seed=draw(st.integers(0, 99)))
    x = x.to(draw(DTYPES))[::step, skipped:]
    return x[:1].expand(rows, columns) if rows and draw(st.booleans()) else x


@drawn
@given(rows_of_numbers(), st.booleans(), st.booleans(), st.booleans())
def test_norms(x: Tensor, rms: bool, residual: bool, quantize: bool) -> None:
    weight = random(x.shape[1], dtype=x.dtype, seed=1)
    more = x.flip(0) if residual else None
    with guarded(pytest.MonkeyPatch()):
        y, total, q, scale = norm(
            x, more, weight, None, EPS, rms=rms, total=residual, quantize=quantize
        )
    assert y is not None
    summed = x if more is None else x + more
    assert total is None or torch.equal(total, summed)
    shape = (x.shape[1],)
    if rms:
        close(y, F.rms_norm(summed.double(), shape, weight.double(), EPS))
    elif len(x):
        # Small numbers in a row differ by less than the rounding of its mean.
        wanted = F.layer_norm(summed.double(), shape, weight.double(), eps=EPS)
        close(y, wanted, tolerance=None if x.dtype != torch.float32 else 1e-5)
    if quantize:
        wanted_q, wanted_scale = quantize_rows(y)
        assert q is not None and scale is not None
        assert torch.equal(q, wanted_q) and torch.equal(scale, wanted_scale)


@drawn
@given(rows_of_numbers())
def test_rounded_rows(x: Tensor) -> None:
    need_fused_products()
    with guarded(pytest.MonkeyPatch()):
        q, scale = quantize_rows(x)
    # On the CPU, since torch multiplies by 1/127 on a GPU.
    wanted_q, wanted_scale = int8_operator(x.cpu())
    assert torch.equal(q.cpu(), wanted_q) and torch.equal(scale.cpu(), wanted_scale)


@drawn
@given(rows_of_numbers())
def test_softmax(x: Tensor) -> None:
    with guarded(pytest.MonkeyPatch()):
        y = softmax(x)
    # The exponent is rounded to float32, so its error grows with what it is.
    close(y, torch.softmax(x.double(), 1), tolerance=max(1e-5, torch.finfo(x.dtype).eps))


@drawn
@given(rows_of_numbers(least=1), st.data())
def test_no_row_depends_on_its_neighbours(x: Tensor, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(x) - 1))
    one = x[at : at + 1]

    def all_of(x: Tensor) -> list[Tensor | None]:
        return [
            *norm(x, None, None, None, EPS, rms=False, quantize=True),
            *quantize_rows(x),
            softmax(x),
        ]

    for whole, alone in zip(all_of(x), all_of(one), strict=True):
        if whole is not None and alone is not None:
            assert torch.equal(whole[at : at + 1], alone)


@drawn
@given(st.lists(rows_of_numbers(least=1), min_size=1, max_size=3), st.data())
def test_rows_of_tables(given_tables: list[Tensor], data: st.DataObject) -> None:
    columns = min(t.shape[1] for t in given_tables)
    tables = [t[:, :columns].to(given_tables[0].dtype) for t in given_tables]
    rows = data.draw(st.integers(0, 20))
    drawn_rows = [
        data.draw(st.lists(st.integers(0, len(t) - 1), min_size=rows, max_size=rows))
        for t in tables
    ]
    indices = [torch.tensor(i, dtype=torch.int64, device=device()) for i in drawn_rows]
    with guarded(pytest.MonkeyPatch()):
        y = embedding_norm(indices, tables, None, None, EPS, rms=True)
    total = sum(t.double()[i] for t, i in zip(tables, indices, strict=True))
    assert isinstance(total, Tensor)
    close(y, F.rms_norm(total, (columns,), eps=EPS), tolerance=None if rows else 1)


@st.composite
def heads_of_tokens(draw: st.DrawFn, dtype: torch.dtype, shape: list[int], heads: int) -> Tensor:
    """[batch, heads, sequence, size] that lies in memory by tokens or by heads, with gaps."""
    batch, sequence, size = shape
    skipped, seed = draw(st.integers(0, 5)), draw(st.integers(0, 99))
    if draw(st.booleans()):
        packed = random(batch, sequence, skipped + heads * size, seed=seed).to(dtype)
        return packed[..., skipped:].unflatten(2, (heads, size)).transpose(1, 2)
    return random(batch, heads, sequence, skipped + size, seed=seed).to(dtype)[..., skipped:]


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 40)).map(list)


@drawn
@given(SHAPES, st.integers(1, 7), st.booleans(), DTYPES, st.data())
def test_rotations(
    shape: list[int], heads: int, packed: bool, dtype: torch.dtype, data: st.DataObject
) -> None:
    x = data.draw(heads_of_tokens(dtype, shape, heads))
    half = data.draw(st.integers(1, shape[2] // 2))
    turned = 3 * random(data.draw(st.sampled_from([1, shape[0]])), shape[1], half)
    cos, sin = turned.cos(), turned.sin()
    with guarded(pytest.MonkeyPatch()):
        y = rotary(x, cos, sin, packed)
    wanted = rotary_operator(x.double(), cos.double(), sin.double(), heads)
    close(y, wanted.transpose(1, 2).flatten(2) if packed else wanted)


@drawn
@given(SHAPES, st.integers(1, 3), st.integers(1, 3), DTYPES, st.data())
def test_caches(
    shape: list[int], kv_heads: int, groups: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    batch, sequence, size = shape
    q = data.draw(heads_of_tokens(dtype, shape, kv_heads * groups))
    k, v = (data.draw(heads_of_tokens(dtype, shape, kv_heads)) for _ in range(2))
    turned = 3 * random(1, sequence, data.draw(st.integers(1, size // 2)))
    cos, sin = turned.cos(), turned.sin()
    places = [data.draw(st.permutations(range(sequence + 2))) for _ in range(batch)]
    positions = torch.tensor(places, device=device())[:, :sequence]
    caches = [torch.zeros(batch, kv_heads, sequence + 2, size, device=device()) for _ in range(2)]
    y = rotary_cache(q, k, v, cos, sin, *caches, positions)

    def rotated(x: Tensor) -> Tensor:
        return rotary_operator(x.double(), cos.double(), sin.double(), x.shape[1])

    at = positions[:, None, :, None].expand(k.shape)
    close(y, rotated(q))
    for cache, rows in zip(caches, (rotated(k), v.double()), strict=True):
        wanted = torch.zeros_like(cache, dtype=torch.float64).scatter(2, at, rows)
        close(cache, wanted)
