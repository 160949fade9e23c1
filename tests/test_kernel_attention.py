"""The attention kernel against the dialect's operator in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import close, device, float_dtypes, guarded, need_gpu, random
from torch import Tensor

from strop.compiler.ir.dialect.attention import attention as operator
from strop.kernels.attention import ATTENTION, attention
from strop.kernels.examples import launches

SCALE = 0.2


def inputs(
    heads: int = 2,
    shared: int = 2,
    queries: int = 5,
    keys: int = 5,
    size: int = 32,
    dtype: torch.dtype = torch.float16,
    batch: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    q = random(batch, heads, queries, size, dtype=dtype)
    k = random(batch, shared, keys, size, dtype=dtype, seed=1)
    return q, k, random(batch, shared, keys, size, dtype=dtype, seed=2)


def hidden(*shape: int) -> Tensor:
    """A bool mask that hides a third of the keys."""
    return random(*shape, seed=3) > -0.4


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float = SCALE,
    softcap: float = 0.0,
) -> Tensor:
    """[batch, heads, queries, size], in float64."""
    if mask is not None:
        mask = torch.atleast_2d(mask if mask.dtype == torch.bool else mask.double())
    heads, shared = q.shape[1], k.shape[1]
    qkv = (x.double() for x in (q, k, v))
    return operator(*qkv, mask, heads, shared, scale, causal, softcap)


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    monkeypatch: pytest.MonkeyPatch,
    softcap: float = 0.0,
) -> None:
    """Compare with the reference."""
    with guarded(monkeypatch):
        out = attention(q, k, v, mask, SCALE, causal, False, softcap)
    close(out, reference(q, k, v, mask, causal, softcap=softcap))


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (1, 123), (5, 5), (64, 65), (65, 64), (123, 5), (123, 123)]
)
def test_any_number_of_queries_and_keys(
    dtype: torch.dtype, causal: bool, queries: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(queries=queries, keys=keys, dtype=dtype, batch=1)
    check(q, k, v, None, causal, monkeypatch)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("size", [8, 32, 64, 65, 80, 96, 128, 256])
def test_any_size_of_heads(dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if size == 256 and dtype == torch.float32:
        size = 127
    q, k, v = inputs(1, 1, 5, 65, size, dtype, batch=1)
    check(q, k, v, None, False, monkeypatch)


@pytest.mark.parametrize("queries", [16, 17, 64, 65, 129])
@pytest.mark.parametrize("size", [32, 80, 128, 256])
@pytest.mark.parametrize("own", [False, True], ids=["no mask", "mask of each query"])
def test_every_tile(queries: int, size: int, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if (queries, size) not in [(17, 32), (129, 32), (129, 80)]:
        need_gpu("takes seconds when interpreted")
    q, k, v = inputs(1, 1, queries, 130, size, batch=1)
    check(q, k, v, hidden(queries, 130) if own else None, True, monkeypatch)


def test_the_result_may_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(size=40)
    with guarded(monkeypatch):
        out = attention(q, k, v, None, SCALE, False, True)
    assert out.is_contiguous()
    close(out, reference(q, k, v, None, False).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 1), (8, 2)])
def test_query_heads_share_key_heads(
    heads: int, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(*inputs(heads, shared, batch=1), None, True, monkeypatch)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize(
    "shape",
    [(2, 2, 5, 70), (2, 1, 1, 70), (1, 2, 5, 70), (2, 5, 70), (5, 70), (70,), (2, 1, 5, 1)],
    ids=str,
)
def test_masks_are_broadcast(
    causal: bool, kind: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(2, 1, 5, 70)
    mask = hidden(*shape) if kind == "bool" else random(*shape, dtype=torch.float16, seed=3)
    check(q, k, v, mask, causal, monkeypatch)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float", "lowest"])
@pytest.mark.parametrize("softcap", [0.3, 30.0])
def test_scores_may_be_bounded(
    dtype: torch.dtype, kind: str, softcap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(2, 1, 70, 70, dtype=dtype, batch=1)
    masks = {
        "bool": hidden(1, 1, 70, 70),
        "float": random(1, 2, 70, 70, dtype=dtype, seed=3),
        "lowest": torch.where(hidden(1, 1, 1, 70), 0.0, -1e30).to(torch.float32),
    }
    check(q, k, v, masks.get(kind), kind == "causal", monkeypatch, softcap)
    plain = reference(q, k, v, masks.get(kind), kind == "causal")
    assert (
        plain - reference(q, k, v, masks.get(kind), kind == "causal", softcap=0.3)
    ).abs().max() > 0.1


def test_bounds_hold_where_scores_are_small_and_where_they_are_large() -> None:
    q, k, v = inputs(1, 1, 5, 65, batch=1)
    for times in (1e-3, 1.0, 1e3):
        out = attention(q * times, k, v, None, SCALE, False, False, 2.0)
        close(out, reference(q * times, k, v, None, False, softcap=2.0))


def test_a_mask_may_be_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(2, 1, 5, 70)
    whole = random(4, 2, 10, 99, seed=3)
    check(q, k, v, whole[::2, :, 1:6, 7:77], False, monkeypatch)
    check(q, k, v, whole[0, 0, 0, 3:73].expand(2, 2, 5, 70), True, monkeypatch)


@pytest.mark.parametrize("lowest", [False, float("-inf")], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_queries_from_which_all_is_hidden_give_zeros(
    lowest: float, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(queries=70, keys=70)
    mask = torch.full((2, 1, 70, 70), True if lowest is False else 0.0, device=device())
    mask[0, :, 3], mask[1, :, :, :2], mask[0, :, 9:, :65] = lowest, lowest, lowest
    check(q, k, v, mask, causal, monkeypatch)
    out = attention(q, k, v, mask, SCALE, causal, False)
    assert not out[0, :, 3].any() and out[0, :, 69].all()


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_masks_of_the_lowest_number_leave_all_keys_alike(dtype: torch.dtype) -> None:
    q, k, v = inputs(queries=5, keys=70, dtype=dtype)
    mask = torch.zeros(2, 1, 5, 70, dtype=torch.float32, device=device())
    mask[:, :, 1], mask[:, :, 2, 3:] = torch.finfo(torch.float32).min, -3e38
    out = attention(q, k, v, mask, SCALE, False, False)
    close(out[:, :, 1], v.double().mean(2))
    wanted = reference(q, k[:, :, :3], v[:, :, :3], None, False)
    close(out[:, :, 2], wanted[:, :, 2])


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_views_with_any_strides_are_read_where_they_lie(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = random(2, 7, 3 * 4 * 16 + 5, dtype=dtype)
    # A joint projection of every second token, its queries' heads backwards.
    parts = everything[:, 1::2, 3:195].unflatten(2, (3, 4, 16))
    q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
    check(q, k.expand(2, 4, 3, 16), v[:, :1].expand(2, 4, 3, 16), None, True, monkeypatch)


@pytest.mark.parametrize("factor", [-1.0, 1.0])
def test_scores_of_sixty_thousand(factor: float) -> None:
    q, k, v = inputs(1, 1, 5, 70)
    q, k = q.clamp(-2, 2), k.clamp(-2, 2)
    q[..., 0], k[..., 0] = 245.0 * factor, 245.0
    k[:, :, 65:, 0] = -245.0
    wanted = reference(q, k, v, None, False, 1.0)
    # Scores of 6e4 are known to 2^-8, and so are powers of e.
    close(attention(q, k, v, None, 1.0, False, False), wanted, tolerance=1e-2)


def test_the_largest_numbers_do_not_overflow() -> None:
    q = torch.full((1, 1, 3, 32), 65504.0, dtype=torch.float16, device=device())
    v = random(1, 1, 70, 32, dtype=torch.float16)
    k = q[:, :, :1].expand(1, 1, 70, 32).clone()
    close(attention(q, k, v, None, 1.0, False, False)[0, 0, 0], v.double().mean(2)[0, 0])
    k[:, :, 1:] *= -1
    close(attention(q, k, v, None, 1.0, False, False)[0, 0, 0], v.double()[0, 0, 0])


@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_to_look_at(
    batch: int, queries: int, keys: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(*inputs(queries=queries, keys=keys, batch=batch), None, causal, monkeypatch)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scales_that_are_not_above_zero_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="has to be above 0"):
        attention(*inputs(), None, scale, False, False)


@pytest.mark.parametrize(
    ("size", "dtype", "said"), [(257, torch.float16, "most 256"), (129, torch.float32, "most 128")]
)
def test_heads_that_are_too_large_are_refused(size: int, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(ValueError, match=f"heads of {size} numbers .* are too large: at {said}"):
        attention(*inputs(size=size, dtype=dtype), None, 1.0, False, False)


def test_a_mask_whose_keys_lie_apart_is_refused() -> None:
    q, k, v = inputs(queries=5, keys=6)
    with pytest.raises(ValueError, match="have to do so too"):
        attention(q, k, v, hidden(6, 5).T, SCALE, False, False)


def test_what_it_has_to_do() -> None:
    made = launches(ATTENTION)["512 tokens, heads of 64, causal"]
    sizes = {"q": 2, "k": 2, "v": 2, "out": 2}
    cost = ATTENTION.cost(made.sizes(), sizes)
    assert cost.operations == 4 * 64 * (4 * 16) * (512 * 513 // 2)
    assert cost.bytes == 4 * (4 * 16 * 512 * 64) * 2
    made = launches(ATTENTION)["512 tokens, heads of 64, bias"]
    masked = ATTENTION.cost(made.sizes(), sizes | {"mask": 2})
    assert masked.bytes - cost.bytes == 16 * 512 * 512 * 2
    made = launches(ATTENTION)["128 tokens, heads of 32, padding"]
    few = ATTENTION.cost(made.sizes(), sizes | {"mask": 1})
    assert few.bytes == 4 * (4 * 12 * 128 * 32) * 2 + 4 * 128
