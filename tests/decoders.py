"""A tiny decoder with caches in plain torch: grouped heads, rotary positions, a tied head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler import Model
from strop.compiler.frontend.decoder_inputs import DecoderInputs
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.model import DimSpec


@dataclass(frozen=True)
class Sizes:
    """Of a decoder; ``window`` is that of attention, None for all places."""

    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 8
    inner: int = 64
    vocabulary: int = 61
    context: int = 64
    window: int | None = None

    @property
    def hidden(self) -> int:
        return self.heads * self.head_size


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary positions of Llama: x [batch, heads, seq, size], positions [batch, seq]."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat([angles, angles], -1)
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angles.cos() + turned * angles.sin()


def repeated(x: Tensor, times: int) -> Tensor:
    """Each head ``times`` times: [batch, heads, seq, size]."""
    batch, heads, seq, size = x.shape
    return x[:, :, None].expand(batch, heads, times, seq, size).reshape(batch, -1, seq, size)


class Layer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, hidden = sizes, sizes.hidden
        self.norm, self.norm_inner = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.q = nn.Linear(hidden, hidden, bias=False)
        self.k = nn.Linear(hidden, sizes.kv_heads * sizes.head_size, bias=False)
        self.v = nn.Linear(hidden, sizes.kv_heads * sizes.head_size, bias=False)
        self.o = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, sizes.inner, bias=False)
        self.up = nn.Linear(hidden, sizes.inner, bias=False)
        self.down = nn.Linear(sizes.inner, hidden, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.sizes.head_size)).transpose(1, 2)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = self.norm(x)
        q = rotated(self._heads(self.q(y)), positions)
        key = torch.cat([past_key, rotated(self._heads(self.k(y)), positions)], 2)
        value = torch.cat([past_value, self._heads(self.v(y))], 2)
        times = self.sizes.heads // self.sizes.kv_heads
        attended = functional.scaled_dot_product_attention(
            q, repeated(key, times), repeated(value, times), attn_mask=mask
        )
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        y = self.norm_inner(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y)), key, value


class Decoder(nn.Module):
    """Takes ids, a mask and caches; gives scores of the last tokens and longer caches."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.hidden)
        self.head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        for name, weight in self.named_parameters():
            # What layers add is larger, or a tied head would repeat the token that it was given.
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.1 if "embedding" in name else 0.5)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor
    ) -> dict[str, Tensor]:
        seq = input_ids.shape[1]
        positions = torch.ops.strop.cache_positions(attention_mask, seq)
        mask = torch.ops.strop.cache_mask(attention_mask, seq, self.sizes.window)
        x, present = self.embedding(input_ids), {}
        for i, layer in enumerate(self.layers):
            key, value = past[f"past_key_values.{i}.key"], past[f"past_key_values.{i}.value"]
            x, key, value = layer(x, positions, mask, key, value)
            present |= {f"present.{i}.key": key, f"present.{i}.value": value}
        last = torch.ops.strop.last_token(self.norm(x), attention_mask)
        return {"logits": self.head(last), **present}


def generation(sizes: Sizes, **more: Any) -> Generation:
    """How the decoder is called; token 0 pads, 1 starts and 2 ends texts."""
    kinds = [(i, kind) for i in range(sizes.layers) for kind in ("key", "value")]
    return Generation(
        caches={f"past_key_values.{i}.{kind}": f"present.{i}.{kind}" for i, kind in kinds},
        context=sizes.context,
        **{"eos": (2,), "pad": 0, "bos": 1} | more,
    )


def decoder(sizes: Sizes = Sizes()) -> Decoder:  # noqa: B008  (it is frozen)
    """In eval mode, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Decoder(sizes).eval()


def axes(sizes: Sizes, caches: Sequence[str]) -> dict[str, dict[int, DimSpec]]:
    """The dims of the inputs."""
    most = sizes.context // 2
    batch, seq, past = ("batch", 1, 4), ("seq", 1, most), ("past", 0, most)
    cache: dict[int, DimSpec] = {0: batch, 2: past}
    return {
        "input_ids": {0: batch, 1: seq},
        "attention_mask": {0: batch, 1: "past + seq"},
        **{name: cache for name in caches},
    }


def make(**sizes: Any) -> Model:
    """A decoder as a factory returns it; ``sizes`` are those of ``Sizes``."""
    chosen = Sizes(**sizes)
    module, called = decoder(chosen), generation(chosen)
    text = torch.randint(
        3, chosen.vocabulary, (4, chosen.context), generator=torch.Generator().manual_seed(1)
    )
    empty = torch.zeros(1, chosen.kv_heads, 0, chosen.head_size)
    inputs_at = DecoderInputs(module, called, text, dict.fromkeys(called.caches, empty))
    shapes = [{"batch": 3, "seq": 5, "past": 7}, {"batch": 2, "seq": 9, "past": 0}]
    batches = [inputs_at(one) for one in [*shapes, {"batch": 3, "seq": 1, "past": 11}]]
    return Model(
        module,
        example_inputs=batches[0],
        dynamic=axes(chosen, list(called.caches)),
        calibration=batches,
        inputs_at=inputs_at,
        generation=called,
    )


def greedy(module: nn.Module, model: Model, ids: Tensor, mask: Tensor, count: int) -> Tensor:
    """Ids of ``count`` more tokens, [batch, count], by the module itself in torch."""
    called = model.generation
    assert called is not None
    assert isinstance(model.example_inputs, dict)
    empty = {n: model.example_inputs[n][:1, :, :0] for n in called.caches}
    caches = {n: c.expand(len(ids), -1, -1, -1) for n, c in empty.items()}
    made: list[Tensor] = []
    with torch.no_grad():
        for _ in range(count):
            given = {called.ids: ids, called.mask: mask}
            outputs = module(**given, **caches)
            ids = outputs[called.logits][:, -1].argmax(-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            caches = {n: outputs[called.caches[n]] for n in caches}
            made.append(ids)
    return torch.cat(made, 1)
