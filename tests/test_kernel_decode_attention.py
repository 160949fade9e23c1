"""The decode attention kernels against softmax and products in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import close, device, float_dtypes, guarded, need_gpu, random
from torch import Tensor

from strop.kernels import buffers
from strop.kernels.decode_attention import DECODE_ATTENTION, MERGE_SPLITS, decode_attention
from strop.kernels.examples import launches

SCALE = 0.2


def inputs(
    heads: int = 2,
    shared: int = 2,
    keys: int = 70,
    size: int = 32,
    dtype: torch.dtype = torch.float16,
    batch: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, and caches of keys and values."""
    q = random(batch, heads, size, dtype=dtype)
    k = random(batch, shared, keys, size, dtype=dtype, seed=1)
    return q, k, random(batch, shared, keys, size, dtype=dtype, seed=2)


def whole(*lengths: int) -> Tensor:
    return torch.tensor(lengths, dtype=torch.int32, device=device())


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softcap: float = 0.0) -> Tensor:
    """[batch, heads, size], in float64; zeros where a mask hides every key."""
    group = q.shape[1] // k.shape[1]
    keys, values = (t.double().repeat_interleave(group, 1) for t in (k, v))
    scores = SCALE * q.double()[:, :, None] @ keys.mT
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    else:
        scores = scores + mask.double()
    return (scores.softmax(-1).nan_to_num(0.0) @ values)[:, :, 0]


def reference(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float = SCALE) -> Tensor:
    """[batch, heads, size], in float64; zeros where there are no keys."""
    out = torch.zeros_like(q, dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for i, length in enumerate(lengths.tolist()):
        keys, values = (t[i, :, :length].double().repeat_interleave(group, 0) for t in (k, v))
        scores = scale * q[i].double()[:, None] @ keys.mT
        out[i] = (scores.softmax(-1) @ values)[:, 0]
    return out


def check(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with the reference."""
    # What lies behind the lengths may be anything.
    for cache in (k, v):
        for i, length in enumerate(lengths.tolist()):
            cache[i, :, length:] = float("nan")
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, lengths, SCALE)
    close(out, reference(q, k, v, lengths))


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("keys", [1, 5, 64, 65, 123, 256, 257, 700])
def test_any_number_of_keys(dtype: torch.dtype, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(*inputs(1, 1, keys, dtype=dtype), whole(keys, keys // 2 + 1), monkeypatch)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("size", [8, 64, 65, 80, 96, 128, 256])
def test_any_size_of_heads(dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if size == 256 and dtype == torch.float32:
        size = 127
    check(*inputs(2, 1, 70, size, dtype, batch=1), whole(69), monkeypatch)


@pytest.mark.parametrize(
    ("heads", "shared"), [(1, 1), (4, 4), (4, 1), (8, 2), (16, 2), (17, 1), (71, 1)]
)
def test_query_heads_share_key_heads(
    heads: int, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(*inputs(heads, shared, batch=1), whole(70), monkeypatch)


@pytest.mark.parametrize(("heads", "shared"), [(2, 2), (8, 1)])
def test_many_splits(heads: int, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    need_gpu("takes seconds when interpreted")
    q, k, v = inputs(heads, shared, 20_000, 64, batch=6)
    check(q, k, v, whole(20_000, 8192, 8191, 1, 0, 12_345), monkeypatch)


def test_lengths_from_nothing_to_more_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(2, 1, 600, batch=5)
    lengths = whole(0, 1, 256, 257, 600)
    check(q, k, v, lengths, monkeypatch)
    out = decode_attention(q, k, v, lengths, SCALE)
    assert not out[0].any()
    assert torch.equal(decode_attention(q[4:], k[4:], v[4:], whole(9000), SCALE), out[4:])
    assert not decode_attention(q[4:], k[4:], v[4:], whole(-3), SCALE).any()


def test_splits_behind_the_length_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []

    def full(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        made.append(like.new_full(shape, 7.0, dtype=dtype))
        return made[-1]

    monkeypatch.setattr(buffers, "empty", full)
    decode_attention(*inputs(2, 1, 600, batch=1), whole(256), SCALE)
    # Three splits, of which the first has keys.
    for part in made[1:4]:
        assert (part[:, :, 1:] == 7).all() and (part[:, :, 0] != 7).all()


def test_the_same_bits_each_time() -> None:
    q, k, v = inputs(4, 2, 700, batch=1)
    first = decode_attention(q, k, v, whole(700), SCALE)
    for _ in range(50 if device() == "cuda" else 1):
        assert torch.equal(decode_attention(q, k, v, whole(700), SCALE), first)


def test_views_with_any_strides_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    q = random(2, 3 * 4 * 16 + 3, dtype=torch.float16)[:, 3:67].unflatten(1, (4, 16))
    # Keys and values side by side, the heads of a token before the next token.
    cache = random(2, 2, 99, 2, 2, 19, dtype=torch.float16, seed=1)
    k, v = (cache[:, 1, ::3, :, i, 2:18].transpose(1, 2) for i in range(2))
    check(q, k, v, whole(33, 20), monkeypatch)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("size", [32, 80, 128])
def test_caches_may_be_int8(dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(4, 2, 300, size, dtype, batch=1)
    scales = [t.float().abs().amax(3) / 127 for t in (k, v)]
    small = [(t / s[..., None]).round().to(torch.int8) for t, s in zip((k, v), scales)]
    # Values far below the smallest number of float16 times 127 stay what they are.
    scales[1][0, 1] *= 1e-3
    with guarded(monkeypatch):
        out = decode_attention(q, *small, whole(290), SCALE, k_scale=scales[0], v_scale=scales[1])
    exact = (t.double() * s.double()[..., None] for t, s in zip(small, scales))
    wanted = reference(q, *exact, whole(290))
    close(out[:, :2], wanted[:, :2])
    close(out[:, 2:], wanted[:, 2:])


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("keys", [1, 5, 123, 257])
def test_padding_on_the_left_is_hidden(
    dtype: torch.dtype, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(4, 2, keys, dtype=dtype, batch=3)
    place = torch.arange(keys, device=device())
    starts = torch.tensor([0, keys // 2, keys - 1], device=device())
    mask = (place >= starts[:, None])[:, None, None]
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, None, SCALE, mask=mask)
    close(out, masked(q, k, v, mask))


def test_keys_before_a_window_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole split is hidden, and one for all samples and heads is read."""
    q, k, v = inputs(2, 1, 600)
    mask = (torch.arange(600, device=device()) >= 590).view(1, 1, 1, 600)
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, None, SCALE, mask=mask)
    close(out, masked(q, k, v, mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("heads", "keys"), [(4, 300), (1, 300), (4, 1), (1, 1)])
def test_what_a_mask_adds_may_be_of_heads_and_of_keys(
    dtype: torch.dtype, heads: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = inputs(4, 2, 300)
    mask = random(2, heads, 1, keys, dtype=dtype, seed=3)
    if keys > 1:
        mask[0, :, :, ::3] = torch.finfo(dtype).min
        mask[1, :, :, 7:] = float("-inf")
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, None, SCALE, mask=mask)
    close(out, masked(q, k, v, mask))


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("softcap", [0.3, 30.0])
def test_scores_may_be_bounded(kind: str, softcap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(4, 2, 300)
    mask = random(2, 1, 1, 300, seed=3)
    mask = mask > -0.4 if kind == "bool" else mask.to(torch.float16)
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, None, SCALE, mask=mask, softcap=softcap)
    close(out, masked(q, k, v, mask, softcap))
    assert (masked(q, k, v, mask) - masked(q, k, v, mask, 0.3)).abs().max() > 0.02


def test_a_mask_and_lengths_hide_what_either_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(2, 1, 300, batch=2)
    place = torch.arange(300, device=device())
    mask = (place % 2 == 0).view(1, 1, 1, 300)
    lengths = whole(300, 9)
    seen = mask & (place < lengths[:, None])[:, None, None]
    with guarded(monkeypatch):
        out = decode_attention(q, k, v, lengths, SCALE, mask=mask)
    close(out, masked(q, k, v, seen))


def test_queries_that_see_nothing_give_zeros() -> None:
    q, k, v = inputs(2, 1, 600)
    mask = torch.ones(2, 1, 1, 600, dtype=torch.bool, device=device())
    mask[1] = False
    out = decode_attention(q, k, v, None, SCALE, mask=mask)
    assert not out[1].any() and out[0].any()
    hidden = torch.zeros(2, 1, 1, 600, device=device()).masked_fill(~mask, float("-inf"))
    assert torch.equal(decode_attention(q, k, v, None, SCALE, mask=hidden), out)


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, -1e30])
def test_the_lowest_number_at_every_key_gives_their_mean(lowest: float) -> None:
    q, k, v = inputs(2, 1, 300)
    mask = torch.full((2, 1, 1, 300), lowest, device=device())
    out = decode_attention(q, k, v, None, SCALE, mask=mask)
    close(out, v.double().mean(2).expand(2, 2, 32))


def test_masks_with_gaps_between_rows_are_read_where_they_lie() -> None:
    q, k, v = inputs(4, 2, 123)
    mask = random(2, 4, 1, 130, dtype=torch.float16, seed=3)[..., 5:128]
    close(decode_attention(q, k, v, None, SCALE, mask=mask), masked(q, k, v, mask))
    with pytest.raises(ValueError, match="follow each other"):
        decode_attention(
            q, k, v, None, SCALE, mask=mask.mT.contiguous().mT.expand(2, 4, 1, 123)[..., ::2]
        )


def test_scores_of_sixty_thousand() -> None:
    q, k, v = inputs(1, 1, 600, batch=1)
    q, k = q.clamp(-2, 2), k.clamp(-2, 2)
    q[..., 0], k[..., 0] = 245.0, 245.0
    k[:, :, 200:, 0] = -245.0
    lengths = whole(600)
    # Scores of 6e4 are known to 2^-8, and so are powers of e.
    wanted = reference(q, k, v, lengths, 1.0)
    close(decode_attention(q, k, v, lengths, 1.0), wanted, tolerance=1e-2)
    wanted = reference(-q, k, v, lengths, 1.0)
    close(decode_attention(-q, k, v, lengths, 1.0), wanted, tolerance=1e-2)


@pytest.mark.parametrize(("batch", "keys"), [(0, 5), (2, 0)])
def test_no_samples_and_caches_without_room(
    batch: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(*inputs(keys=keys, batch=batch), whole(*[0] * batch), monkeypatch)


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        decode_attention(*inputs(), whole(1, 1), 0.0)
    with pytest.raises(ValueError, match="heads of 257 numbers of torch.float16 are too large"):
        decode_attention(*inputs(size=257), whole(1, 1), 1.0)


def test_what_it_has_to_do() -> None:
    sizes = {"q": 2, "k_cache": 2, "v_cache": 2, "lengths": 4, "sums": 4, "tops": 4, "totals": 4}
    made = launches(DECODE_ATTENTION)["8 x 4096 keys, 8 for 32 heads of 128"]
    cost = DECODE_ATTENTION.cost(made.sizes(), sizes)
    cache = 2 * (8 * 8 * 4096 * 128) * 2
    parts = 4 * (8 * 32 * 16 * 130)
    assert cost.bytes == cache + parts + 8 * 32 * 128 * 2 + 8 * 4
    assert cost.operations == 4 * 8 * 32 * 4096 * 128
    # Nearly all that is moved is the cache.
    assert parts < 0.04 * cache
    made = launches(MERGE_SPLITS)["8 x 4096 keys, 8 for 32 heads of 128"]
    assert MERGE_SPLITS.cost(made.sizes(), sizes | {"out": 2}).bytes == (
        parts + 8 * 32 * 128 * 2 + 8 * 4
    )
