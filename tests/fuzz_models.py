"""Random small models out of what our passes look at: blocks on a pool of values, drawn as numbers.

A model is a list of blocks. Each takes values from the pool and puts some back, its inner ones too,
so that values are used twice, out of order, or returned. What a block decides (which value, which
form, which weights) it reads from a tape of numbers; 0 is always the plainest choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
WIDTH, HEADS, SIZE, ROWS, MEMORY = 16, 4, 4, 24, 11
EPS = (1e-5, 1e-6, 1e-3)
FLOORS = (-1e9, float("-inf"), torch.finfo(torch.float32).min, -2e4)


@dataclass(frozen=True)
class Recipe:
    """What hypothesis draws.

    Attributes:
        blocks: names in ``BLOCKS``, with the numbers that each reads.
        outputs: which values are returned beside the last one.
        dynamic: how many of batch and sequence are dynamic.
        seed: of weights and inputs.
        gain: the magnitude of the weights and inputs.
    """

    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[int, ...]
    dynamic: int
    seed: int
    gain: float


class Pool:
    """The values, weights and decisions of one run of a model.

    Values are kept by kind: "stream" [batch, seq, 16], "heads" [batch, 4, seq, 4], "small" (any
    that broadcasts to a stream), "hidden", "visible" and "bias" (masks that
    broadcast to [batch, 4, seq, seq], bool with True for hidden or not, and float).
    """

    def __init__(self, weights: nn.ParameterList, seed: int, gain: float) -> None:
        self.weights, self.gain = weights, gain
        self.values: dict[str, list[Tensor]] = {}
        self.last: Tensor | None = None
        self.tape: tuple[int, ...] = ()
        self.read = self.used = 0
        self.generator = torch.Generator().manual_seed(seed)

    def choose(self, *options: T) -> T:
        """One of the options, by the next number of the tape, which is a loop."""
        number = self.tape[self.read % len(self.tape)] if self.tape else 0
        self.read += 1
        return options[number % len(options)]

    def pick(self, kind: str) -> Tensor:
        """A value of a kind, counted from the latest."""
        return self.choose(*reversed(self.values[kind]))

    def keep(self, kind: str, value: Tensor) -> Tensor:
        """Put a value into the pool."""
        self.values.setdefault(kind, []).append(value)
        self.last = value
        return value

    def weight(self, *shape: int, around: float = 0.0, spread: float = 0.0) -> Tensor:
        """A weight of its own, random about a mean; or, by choice, one that exists already."""
        self.used += 1
        if self.used > len(self.weights):
            shared = self.choose(False, False, False, True)
            same = [w for w in self.weights if w.shape == shape]
            spread = spread or self.gain / math.sqrt(shape[-1])
            noise = torch.randn(shape, generator=self.generator)
            fresh = nn.Parameter(around + spread * noise)
            self.weights.append(same[0] if shared and same else fresh)
        else:
            self.choose(False)
        return self.weights[self.used - 1]

    def maybe(self, *shape: int, around: float = 0.0) -> Tensor | None:
        """A weight, or none."""
        made = self.weight(*shape, around=around, spread=0.5)
        return self.choose(made, made, None)

    @property
    def sizes(self) -> tuple[Any, Any]:
        """Batch and sequence."""
        shape = self.values["stream"][0].shape
        return shape[0], shape[1]


def linear(p: Pool, x: Tensor, out: int = WIDTH) -> Tensor:
    """[..., in] -> [..., out], in the forms that people write."""
    form = p.choose("linear", "matmul", "transposed", "addmm", "flat", "scaled")
    weight, bias = p.weight(out, x.shape[-1]), p.maybe(out)
    if form == "linear":
        return F.linear(x, weight, bias)
    if form in ("matmul", "transposed"):
        straight = p.weight(x.shape[-1], out)
        y = x @ (weight.t() if form == "transposed" else straight)
        return y if bias is None else y + bias
    if form == "addmm":
        rows, straight = x.reshape(-1, x.shape[-1]), p.weight(x.shape[-1], out)
        added = rows if bias is None and out == x.shape[-1] else p.weight(out)
        return torch.addmm(added, rows, straight).view(*x.shape[:-1], out)
    if form == "flat":
        return F.linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], out)
    return F.linear(x, weight * 0.5, bias)


def block_linear(p: Pool) -> None:
    p.keep("stream", linear(p, p.pick("stream")))


def block_siblings(p: Pool) -> None:
    x = p.pick("stream")
    a = p.keep("stream", linear(p, x))
    p.keep("stream", p.choose(a, linear(p, a), p.pick("stream")) + linear(p, x))


def block_add(p: Pool) -> None:
    a, b = p.pick("stream"), p.pick(p.choose("stream", "small"))
    how = p.choose("plain", "swapped", "alpha", "sub", "number", "mul")
    results: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: a + b,
        "swapped": lambda: b + a,
        "alpha": lambda: torch.add(a, b, alpha=2),
        "sub": lambda: a - b,
        "number": lambda: a + b + 0.5,
        "mul": lambda: a * b,
    }
    p.keep("stream", results[how]())


def block_sum_norm(p: Pool) -> None:
    """A residual sum and its norm, as in every transformer."""
    x, y = p.pick("stream"), linear(p, p.pick("stream"))
    total = p.choose(lambda: x + y, lambda: y + x, lambda: y + y)()
    if p.choose(False, True):
        p.keep("stream", total)
    p.keep("stream", norm(p, total))


def block_post_norm(p: Pool) -> None:
    """A residual layer between two norms, as in BERT."""
    x = p.pick("stream")
    weight, bias = p.weight(WIDTH, around=1.0, spread=0.5), p.weight(WIDTH)
    before = p.choose(lambda: x, lambda: x + linear(p, x))()
    stream = F.layer_norm(before, (WIDTH,), weight, bias, p.choose(*EPS))
    inner = p.choose(
        lambda: stream, lambda: activation(p, F.linear(stream, p.weight(WIDTH, WIDTH))), lambda: x
    )()
    if p.choose(False, False, True):
        p.keep("stream", stream)
    out = F.linear(inner, p.weight(WIDTH, WIDTH), p.weight(WIDTH))
    total = p.choose(lambda: stream + out, lambda: out + stream)()
    if p.choose(False, False, True):
        p.keep("stream", total)
    p.keep("stream", norm(p, total))


def norm(p: Pool, x: Tensor) -> Tensor:
    """A norm over the last axis, as an operator or written out."""
    form = p.choose("layer", "rms", "rms-hand", "layer-hand", "layer-two")
    eps, weight = p.choose(*EPS), p.maybe(WIDTH, around=1.0)
    if form == "layer":
        return F.layer_norm(x, (WIDTH,), weight, p.maybe(WIDTH), eps)
    if form == "rms":
        return F.rms_norm(x, (WIDTH,), weight, p.choose(eps, None))
    if form == "layer-two":
        heads = x.unflatten(-1, (HEADS, SIZE))
        two = p.weight(HEADS, SIZE, around=1.0, spread=0.5)
        return F.layer_norm(heads, (HEADS, SIZE), two, p.maybe(HEADS, SIZE), eps).flatten(-2)
    if form == "rms-hand":
        return rms_by_hand(p, x, weight, eps)
    centred = x - x.mean(-1, keepdim=True)
    y = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
    return y if weight is None else weight * y + p.weight(WIDTH)


def rms_by_hand(p: Pool, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    square = p.choose(x.pow(2), x * x, x.square())
    axis = p.choose(-1, -1, 2, 1)
    mean = square.mean(axis, keepdim=True)
    how = p.choose("rsqrt", "power", "divide")
    if how == "rsqrt":
        y = x * torch.rsqrt(mean + eps)
    else:
        y = x * (mean + eps) ** -0.5 if how == "power" else x / torch.sqrt(mean + eps)
    if weight is None:
        return y
    return p.choose(lambda: weight * y, lambda: y * weight, lambda: y * (1 + weight))()


def block_norm(p: Pool) -> None:
    p.keep("stream", norm(p, p.pick("stream")))


def activation(p: Pool, x: Tensor) -> Tensor:
    root, tanh = math.sqrt(2), math.sqrt(2 / math.pi)
    form = p.choose(
        lambda: F.gelu(x),
        lambda: F.gelu(x, approximate="tanh"),
        lambda: F.silu(x),
        lambda: x * torch.sigmoid(x),
        lambda: torch.sigmoid(x) * x,
        lambda: x * 0.5 * (1.0 + torch.erf(x / root)),
        lambda: 0.5 * (x * (1 + torch.erf(x * 0.70710678))),
        lambda: 0.5 * x * (1 + torch.tanh(tanh * (x + 0.044715 * x**3))),
        lambda: x * (0.5 * (1 + torch.tanh((x + 0.044715 * (x * x * x)) * tanh))),
        lambda: 0.5 * x * (1.0 + torch.erf(x / 1.5)),
        lambda: torch.relu(x),
        lambda: torch.tanh(x),
        lambda: x * torch.sigmoid(1.702 * x),
    )
    return form()


def block_activation(p: Pool) -> None:
    x = p.pick("stream")
    if p.choose(True, False):
        x = linear(p, x)
        if p.choose(False, True):
            p.keep("stream", x)
    p.keep("stream", activation(p, x))


def block_gated(p: Pool) -> None:
    x = p.pick("stream")
    gate = activation(p, linear(p, x))
    up = p.choose(lambda: linear(p, x), lambda: gate, lambda: p.pick("small"))()
    if p.choose(False, True):
        p.keep("stream", gate)
    p.keep("stream", p.choose(lambda: gate * up, lambda: up * gate)())


def block_heads(p: Pool) -> None:
    x = p.pick("stream")
    if p.choose(True, False):
        x = linear(p, x)
    p.keep("heads", split(p, x, HEADS))


def split(p: Pool, x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads*size] -> [batch, heads, seq, size]."""
    rows = p.choose(
        lambda: x.view(x.shape[0], x.shape[1], heads, -1), lambda: x.unflatten(-1, (heads, -1))
    )()
    return p.choose(
        lambda: rows.transpose(1, 2), lambda: rows.permute(0, 2, 1, 3), lambda: rows.transpose(2, 1)
    )()


def merge(p: Pool, x: Tensor) -> Tensor:
    """[batch, heads, seq, size] -> [batch, seq, heads*size]."""
    rows = x.transpose(1, 2)
    return p.choose(
        lambda: rows.flatten(2),
        lambda: rows.contiguous().view(x.shape[0], x.shape[2], -1),
        lambda: rows.reshape(x.shape[0], -1, WIDTH),
    )()


def some_heads(p: Pool) -> Tensor:
    if "heads" not in p.values:
        block_heads(p)
    return p.pick("heads")


def block_merge(p: Pool) -> None:
    p.keep("stream", merge(p, some_heads(p)))


def block_rotary(p: Pool) -> None:
    x, (_, length) = some_heads(p), p.sizes
    rotated = p.choose(SIZE, 2)
    positions = p.choose(
        lambda: torch.arange(length)[None],
        lambda: p.values["ids"][0],
        lambda: torch.zeros(1, 1, dtype=torch.int64) + 3,
    )()
    frequencies = 1 / 10.0 ** (torch.arange(0, rotated, 2) / rotated)
    angles = positions[:, :, None].float() * frequencies
    table = torch.cat((angles, angles), dim=-1)
    scale = p.choose(1, 0.7)
    cos, sin = (table.cos() * scale).unsqueeze(1), (table.sin() * scale).unsqueeze(1)
    part, rest = x[..., :rotated], x[..., rotated:]
    if rotated == SIZE:
        part = x
    half = torch.cat((-part[..., rotated // 2 :], part[..., : rotated // 2]), dim=-1)
    turned = part * cos + half * sin
    passed = p.choose(lambda: rest, lambda: part)()
    p.keep("heads", torch.cat((turned, passed), -1) if rotated < SIZE else turned)


def block_mask(p: Pool) -> None:
    """A mask: causal or padding, given or computed, bool or float, that may hide whole rows."""
    batch, length = p.sizes
    grid, ids = torch.arange(length), p.values["ids"][0]
    form = p.choose("causal", "padding", "tril", "indexed", "both", "row", "float", "alibi")
    causal = grid[None, :] > grid[:, None]
    padding = ids % 3 == p.choose(0, 1)
    fill = p.choose(*FLOORS)
    if form == "float":
        made = p.choose(
            lambda: (1.0 - (~padding).float())[:, None, None, :] * max(fill, -3e38),
            lambda: torch.zeros(length, length).masked_fill(causal, fill),
            lambda: torch.where(padding[:, None, None, :] | causal[None, None], fill, 0.0),
        )()
        p.keep("bias", made)
    elif form == "alibi":
        distance = (grid[None, :] - grid[:, None]).float()
        slope = p.choose(
            lambda: distance * 0.1,
            lambda: distance * p.weight(HEADS, 1, 1),
            lambda: p.weight(HEADS, 1, 1) * distance[None, None],
        )()
        p.keep("bias", slope)
    else:
        forms: dict[str, Callable[[], Tensor]] = {
            "causal": lambda: causal,
            "padding": lambda: padding[:, None, None, :],
            "tril": lambda: torch.ones(length, length, dtype=torch.bool).tril().logical_not(),
            "both": lambda: padding[:, None, None, :] | causal[None, None],
            "row": lambda: padding[:, None, :, None],
            "indexed": lambda: ~indexed(p, padding),
        }
        p.keep("hidden", forms[form]())


def indexed(p: Pool, padding: Tensor) -> Tensor:
    """What model libraries compute: index grids, and the padding looked up by them."""
    batch, length = padding.shape
    grid, rows = torch.arange(length), torch.arange(batch)
    visible = grid[None, None, None, :] <= grid[None, None, :, None]
    keys = (~padding)[rows[:, None, None, None], grid[None, None, None, :]]
    how = p.choose("both", "causal", "keys")
    if how == "both":
        return p.keep("visible", visible & keys)
    one = visible if how == "causal" else keys
    return p.keep("visible", one.expand(batch, 1, length, length))


def projections(p: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of 4, 2 or 1 heads, which may share inputs, weights or everything."""
    x = p.pick("stream")
    memory = p.weight(1, MEMORY, WIDTH) if p.choose(False, False, False, True) else None
    y = p.choose(x, p.pick("stream")) if memory is None else memory
    if memory is not None and p.choose(True, False):
        y = memory.expand(x.shape[0], MEMORY, WIDTH)
    kv_heads = p.choose(HEADS, HEADS, 2, 1)
    shared = p.choose("none", "kv", "all", "pool")
    if shared == "pool" and "heads" in p.values:
        return p.pick("heads"), p.pick("heads"), p.pick("heads")
    k = split(p, linear(p, y, kv_heads * SIZE), kv_heads)
    if shared == "all" and kv_heads == HEADS and memory is None:
        return k, k, k
    q = split(p, linear(p, x), HEADS)
    return q, k, k if shared == "kv" else split(p, linear(p, y, kv_heads * SIZE), kv_heads)


def is_memory(k: Tensor) -> bool:
    """Whether keys come from elsewhere: no mask has their length."""
    return isinstance(k.shape[2], int) and k.shape[2] == MEMORY


def repeated(p: Pool, x: Tensor) -> Tensor:
    """Grouped heads repeated to as many as the queries have."""
    times = HEADS // x.shape[1]
    if times == 1:
        return x
    if p.choose(True, False):
        wide = x[:, :, None].expand(x.shape[0], x.shape[1], times, x.shape[2], x.shape[3])
        return wide.reshape(x.shape[0], HEADS, x.shape[2], x.shape[3])
    return x.repeat_interleave(times, dim=1)


def block_sdpa(p: Pool) -> None:
    q, k, v = projections(p)
    grouped = p.choose(True, False)
    if not grouped:
        k, v = repeated(p, k), repeated(p, v)
    mask, causal = None, False
    kind = p.choose("none", "causal", "visible", "hidden", "bias")
    if kind == "causal":
        causal = True
    elif kind == "visible" and not is_memory(k):
        mask = p.pick(kind) if kind in p.values else indexed(p, p.values["ids"][0] % 3 == 0)
    elif kind in p.values and not is_memory(k):
        given = p.pick(kind)
        mask = given.logical_not() if kind == "hidden" else given
    scale = p.choose(None, 0.3, 1.0)
    out = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )
    finish_attention(p, q, k, out)


def finish_attention(p: Pool, q: Tensor, k: Tensor, out: Tensor) -> None:
    if p.choose(False, False, True):
        p.keep("heads", p.choose(q, q if k.shape[1] != HEADS or is_memory(k) else k))
    if p.choose(False, False, True):
        p.keep("heads", out)
    else:
        merged = merge(p, out)
        p.keep("stream", linear(p, merged) if p.choose(True, False) else merged)


def block_eager(p: Pool) -> None:
    q, k, v = projections(p)
    k, v = repeated(p, k), repeated(p, v)
    batch, length = p.sizes
    folded = p.choose(False, False, True)
    if folded:
        q, k, v = (t.expand(batch, *t.shape[1:]).reshape(-1, t.shape[2], SIZE) for t in (q, k, v))
    keys, masks = k.shape[-2], not is_memory(k[None] if folded else k)
    product = torch.bmm if folded else torch.matmul
    scores = scaled(p, product(q, k.transpose(-1, -2)))
    unfold = p.choose(False, True) if folded else True
    if folded and unfold:
        scores = scores.view(batch, HEADS, length, keys)
    if unfold and masks:
        for _ in range(p.choose(0, 1, 2)):
            scores = masked(p, scores)
    scores = scaled(p, scores) if p.choose(False, False, True) else scores
    weights = F.dropout(scores.softmax(-1), 0.1, training=False)
    if folded and unfold:
        weights = weights.view(-1, length, keys)
    if p.choose(False, False, False, True):
        p.keep("weights", weights)
    out = product(weights, v)
    out = out.view(batch, HEADS, length, SIZE) if folded else out
    finish_attention(p, p.values["heads"][-1] if folded and "heads" in p.values else out, out, out)


def scaled(p: Pool, scores: Tensor) -> Tensor:
    return p.choose(
        lambda: scores / 2.0,
        lambda: scores,
        lambda: scores * 0.5,
        lambda: scores * -0.4,
        lambda: scores * p.weight(1, around=1.0, spread=0.1),
    )()


def masked(p: Pool, scores: Tensor) -> Tensor:
    kind = p.choose("hidden", "bias", "where")
    if kind == "bias":
        return scores + p.pick("bias") if kind in p.values else scores + 0.5
    if "hidden" not in p.values:
        return scores
    hidden, floor = p.pick("hidden"), p.choose(*FLOORS)
    if kind == "where":
        return torch.where(hidden, torch.tensor(floor), scores)
    return scores.masked_fill(hidden, floor)


def block_embedding(p: Pool) -> None:
    ids, (batch, length) = p.values["ids"][0], p.sizes
    words = F.embedding(ids, p.weight(ROWS, WIDTH, spread=1.0))
    positions = p.choose(
        lambda: torch.arange(length)[None],
        lambda: torch.arange(length),
        lambda: torch.arange(ROWS)[None][:, :length],
        lambda: torch.arange(length)[None].expand(batch, length),
        lambda: torch.arange(length)[None] + 2,
        lambda: torch.arange(1).expand(batch, length),
        lambda: torch.zeros_like(ids),
    )()
    types = p.choose(
        lambda: torch.zeros_like(ids),
        lambda: torch.zeros(1, length, dtype=torch.int64),
        lambda: torch.ones(length, dtype=torch.int64),
        lambda: torch.zeros(1, ROWS, dtype=torch.int64)[:, :length].expand(batch, length),
    )()
    a = F.embedding(positions, p.weight(ROWS, WIDTH, spread=1.0))
    b = F.embedding(types, p.weight(2, WIDTH, spread=1.0))
    p.keep("small", a)
    if p.choose(False, True):
        p.keep("small", b)
    total = p.choose(lambda: words + b + a, lambda: words + a + b, lambda: (a + b) + words)()
    p.keep("stream", total)


def block_conv(p: Pool) -> None:
    x = p.pick("stream").transpose(1, 2)
    two = p.choose(False, True)
    width, padding = p.choose((3, 1), (1, 0), (3, "same"))
    groups = p.choose(1, 2)
    kernel = (width, width) if two else (width,)
    if two:
        x = x.unsqueeze(2)
    weight, bias = p.weight(WIDTH, WIDTH // groups, *kernel), p.maybe(WIDTH)
    y = (F.conv2d if two else F.conv1d)(x, weight, bias, padding=padding, groups=groups)
    if p.choose(False, False, True):
        p.keep("stream", (y.squeeze(2) if two else y).transpose(1, 2))
    if p.choose(True, False):
        mean, variance = p.weight(WIDTH), p.weight(WIDTH, spread=0.5).square() + 0.1
        y = F.batch_norm(y, mean, variance, p.maybe(WIDTH, around=1.0), p.maybe(WIDTH))
    y = torch.relu(y) if p.choose(True, False) else y
    p.keep("stream", (y.squeeze(2) if two else y).transpose(1, 2))


def block_nothing(p: Pool) -> None:
    """What changes nothing, or seems to."""
    x, (batch, length) = p.pick("stream"), p.sizes
    forms: tuple[Callable[[], Tensor], ...] = (
        lambda: F.dropout(x, 0.5, training=False),
        lambda: x.contiguous().clone(),
        lambda: x + 0,
        lambda: x * 1.0,
        lambda: x / 1,
        lambda: x - 0.0,
        lambda: 0 - x,
        lambda: x.transpose(0, 1).transpose(1, 0),
        lambda: x.transpose(0, 1).transpose(1, 2).transpose(1, 2).transpose(0, 1),
        lambda: x.reshape(-1, WIDTH).view(batch, length, WIDTH),
        lambda: x.permute(2, 0, 1).permute(1, 2, 0),
        lambda: x.flatten(1).unflatten(1, (-1, WIDTH)),
        lambda: x.transpose(1, 2).reshape(batch, length, WIDTH),
        lambda: x.double().float(),
        lambda: x.half().float(),
        lambda: x.bfloat16().half().bfloat16().float(),
        lambda: (x > 0).to(torch.int64).to(torch.bool).float() * x,
        lambda: x.to(torch.int64).to(torch.int32).to(torch.int64).float() + x,
        lambda: F.pad(x, (0, 0)),
        lambda: F.pad(x, (1, -1)),
        lambda: x[:, :length],
        lambda: x[..., ::1],
        lambda: x.flip(1),
        lambda: x.expand(batch, length, WIDTH),
        lambda: x.type_as(torch.zeros(1)),
    )
    p.keep("stream", p.choose(*forms)())


def block_small(p: Pool) -> None:
    """Values that broadcast to a stream."""
    x, (_, length) = p.pick("stream"), p.sizes
    p.keep(
        "small",
        p.choose(
            lambda: p.weight(WIDTH),
            lambda: p.weight(1, WIDTH),
            lambda: x[:, :1],
            lambda: x.mean(-1, keepdim=True),
            lambda: x[0],
            lambda: torch.arange(length)[:, None] * 0.1,
            lambda: p.weight(ROWS, WIDTH)[:length],
            lambda: torch.full((1,), 2.0),
            lambda: x.softmax(1).sum(1, keepdim=True),
            lambda: torch.tensor(1.5),
        )(),
    )


def block_turns(p: Pool) -> None:
    """Axes exchanged a few times, and put in order again."""
    x, order = p.pick("stream"), [0, 1, 2]
    for _ in range(p.choose(2, 1, 3, 4)):
        if p.choose(True, True, False):
            a, b = p.choose((0, 1), (1, 2), (-1, 0), (1, 1))
            x = x.transpose(a, b)
            order[a], order[b] = order[b], order[a]
        else:
            turn = p.choose((1, 2, 0), (0, 2, 1), (-1, 1, 0))
            x, order = x.permute(turn), [order[a] for a in turn]
        x = p.choose(lambda: x, lambda: x.contiguous(), lambda: x + 1)()  # noqa: B023
    p.keep("stream", x.permute([order.index(a) for a in range(3)]))


def block_slices(p: Pool) -> None:
    x = p.pick("stream")
    half = WIDTH // 2
    p.keep(
        "stream",
        p.choose(
            lambda: torch.cat((x[..., half:], x[..., :half]), -1),
            lambda: torch.cat((x[:, :1], x[:, 1:]), 1),
            lambda: torch.cat(x.chunk(2, -1)[::-1], -1),
            lambda: torch.cat((-x[..., half:], x[..., :half]), -1),
            lambda: x * x[:, -1:],
            lambda: torch.stack(x.split(half, -1), -1).flatten(-2),
            lambda: F.softmax(x, -1),
            lambda: torch.where(x > 0, x, 0.1 * x),
        )(),
    )


BLOCKS: dict[str, Callable[[Pool], None]] = {
    name.removeprefix("block_"): block
    for name, block in sorted(globals().items())
    if name.startswith("block_")
}


class Fuzzed(nn.Module):
    """The model of a recipe; its weights are made when it first runs."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.weights = nn.ParameterList()

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        pool = Pool(self.weights, self.recipe.seed, self.recipe.gain)
        pool.values = {"stream": [x], "small": [x[:1]], "ids": [ids]}
        for name, pool.tape in self.recipe.blocks:
            pool.read = 0
            BLOCKS[name](pool)
        found = [v for values in pool.values.values() for v in values]
        extra = [found[n % len(found)] for n in self.recipe.outputs]
        assert pool.last is not None
        return (pool.last, *extra)


def inputs_of(recipe: Recipe, batch: int, length: int) -> Sequence[Tensor]:
    """Inputs of a size: a stream, and indices of words, 0 to 23."""
    generator = torch.Generator().manual_seed(recipe.seed + 7)
    x = torch.randn(batch, length, WIDTH, generator=generator) * recipe.gain
    return x, torch.randint(0, ROWS, (batch, length), generator=generator)
