"""A tiny encoder and its decoder, whose cross caches are computed once for each text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.compiler import Model, Programs
from strop.compiler.frontend.generation import Generation

VOCABULARY, HEADS, SIZE, CONTEXT, SOURCE = 37, 2, 8, 40, 12
HIDDEN = HEADS * SIZE
KINDS = ("key", "value")


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, SIZE)).transpose(1, 2)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.mix, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        x = self.embedding(input_ids)
        mask = attention_mask[:, None, None].ne(0)
        y = heads(self.mix(x))
        x = x + functional.scaled_dot_product_attention(y, y, y, attn_mask=mask).transpose(
            1, 2
        ).flatten(2)
        return {"cross.0.key": heads(self.key(x)), "cross.0.value": heads(self.value(x))}


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.places = nn.Embedding(CONTEXT, HIDDEN)
        self.q, self.k, self.v, self.across = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))
        self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, encoder_attention_mask: Tensor,
        **caches: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        total, seq = attention_mask.shape[1], input_ids.shape[1]
        places = torch.arange(total)[total - seq :]
        x = self.embedding(input_ids) + self.places(places)
        key = torch.cat([caches["past_key_values.0.key"], heads(self.k(x))], 2)
        value = torch.cat([caches["past_key_values.0.value"], heads(self.v(x))], 2)
        seen = (torch.arange(total) <= places[:, None])[None, None]
        seen = seen & attention_mask.ne(0)[:, None, None]
        attend = functional.scaled_dot_product_attention
        x = x + attend(heads(self.q(x)), key, value, attn_mask=seen).transpose(1, 2).flatten(2)
        cross = caches["cross.0.key"], caches["cross.0.value"]
        mask = encoder_attention_mask[:, None, None].ne(0)
        x = x + attend(heads(self.across(x)), *cross, attn_mask=mask).transpose(1, 2).flatten(2)
        present = {"present.0.key": key, "present.0.value": value}
        return {"logits": self.head(x[:, -1:]), **present}


def modules() -> tuple[Encoder, Decoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Encoder().eval(), Decoder().eval()
        for module in made:
            for weight in module.parameters():
                nn.init.normal_(weight, std=0.6)
    return made


def make() -> Programs:
    """Two programs as a factory returns them; token 0 pads, 1 starts and 2 ends texts."""
    encoder, decoder = modules()
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 4:], mask[2, 2:] = 0, 0
    source = {"input_ids": ids * mask, "attention_mask": mask}
    with torch.no_grad():
        cross = encoder(**source)
    past = torch.randn(3, HEADS, 4, SIZE, generator=draw)
    inputs = {
        "input_ids": ids[:, :2],
        "attention_mask": torch.ones(3, 6, dtype=torch.int64),
        "encoder_attention_mask": mask,
        **{f"past_key_values.0.{kind}": past for kind in KINDS},
        **cross,
    }
    batch, length = ("batch", 1, 8), ("source", 1, SOURCE)
    cached = {0: batch, 2: ("past", 0, CONTEXT - 4)}
    dynamic = {
        "input_ids": {0: batch, 1: ("seq", 1, 4)},
        "attention_mask": {0: batch, 1: "past + seq"},
        "encoder_attention_mask": {0: batch, 1: length},
        **{f"past_key_values.0.{kind}": cached for kind in KINDS},
        **{name: {0: batch, 2: length} for name in cross},
    }
    ranges = {name: {0: batch, 1: length} for name in source}
    generation = Generation(
        caches={f"past_key_values.0.{kind}": f"present.0.{kind}" for kind in KINDS},
        cross={name: name for name in cross},
        context=CONTEXT, eos=(2,), pad=0, start=(1,),
    )  # fmt: skip
    models = {
        "encoder": Model(encoder, source, dynamic=ranges, calibration=[source]),
        "decoder": Model(decoder, inputs, dynamic=dynamic),
    }
    return Programs(models, generation=generation)
