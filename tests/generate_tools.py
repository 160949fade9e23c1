"""Decoders for tests of the loop: tiny modules in torch, and one whose scores are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoders import Decoder, Sizes, decoder, generation, make
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from strop.compiler import Model
from strop.compiler.frontend.generation import Generation
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prepared import Opened
from strop.compiler.generate.prompts import batch_of
from strop.compiler.generate.settings import Settings
from strop.compiler.generate.text import TOKENIZER
from strop.compiler.targets.decoding import FedDecoder, Start, names_of

VOCABULARY = Sizes().vocabulary


@cache
def tiny() -> tuple[Decoder, Generation]:
    return decoder(), generation(Sizes(), eos=())


def empty_caches(called: Generation) -> dict[str, Any]:
    sizes = Sizes()
    none = np.zeros((1, sizes.kv_heads, 0, sizes.head_size), np.float32)
    return dict.fromkeys(called.caches, none)


def fed(module: torch.nn.Module, called: Generation) -> FedDecoder:
    """A decoder in torch with empty caches."""

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            found = module(**{name: torch.as_tensor(array) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return FedDecoder(run, names_of(called), Start(empty_caches(called)))


def tokens_of(prompts: Sequence[Sequence[int]], settings: Settings, **called: Any) -> list[Any]:
    """The tokens that the tiny decoder makes, for each prompt."""
    module, usual = tiny()
    how = generation(Sizes(), **{"eos": usual.eos, **called})
    batch = batch_of(prompts, how, VOCABULARY)
    found: list[list[int]] = [[] for _ in prompts]
    for step in Loop(fed(module, how), batch, how, settings, settings.max_new or 8):
        for row, token in step.items():
            found[row].append(token)
    return found


class Scripted:
    """Scores that say one token after another, the same for every text."""

    def __init__(self, tokens: Sequence[int], vocabulary: int = VOCABULARY) -> None:
        self.tokens, self.vocabulary, self.given = list(tokens), vocabulary, []

    def step(self, ids: Any, mask: Any) -> Any:
        self.given.append((ids.tolist(), mask.tolist()))
        scores = np.zeros((len(ids), self.vocabulary), np.float32)
        scores[:, self.tokens[len(self.given) - 1]] = 1
        return scores

    def repeat(self, times: int) -> None:
        raise AssertionError

    def reorder(self, rows: Sequence[int]) -> None:
        raise AssertionError


def byte_tokenizer(folder: Any) -> Any:
    """Write a tokenizer whose token i is the byte i; returns that of the library."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte)
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / TOKENIZER))
    return made


def _byte(letter: str) -> int:
    """The byte that a letter of byte-level tokenizers stands for."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    code = ord(letter)
    return code if code in shown else hidden[code - 256]


def scripted(tokens: Sequence[int], tokenizer: Any = None, **called: Any) -> Opened:
    """A model of 256 tokens that says these."""
    how = generation(Sizes(context=64), **{"eos": (), **called})
    return Opened(how, 256, lambda fixed: Scripted(tokens, 256), tokenizer=tokenizer)


class PlainDecoder(Decoder):
    """The same without operators of strop's: as an author writes it who knows nothing of them."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **past: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        total, seq = attention_mask.shape[1], input_ids.shape[1]
        real = attention_mask.ne(0)
        positions = (real.long().cumsum(1) - 1).clamp(min=0)[:, total - seq :]
        places = torch.arange(total)
        seen = (places <= places[total - seq :, None])[None, None] & real[:, None, None, :]
        x, present = self.embedding(input_ids), {}
        for i, layer in enumerate(self.layers):
            key, value = past[f"past_key_values.{i}.key"], past[f"past_key_values.{i}.value"]
            x, key, value = layer(x, positions, seen, key, value)
            present |= {f"present.{i}.key": key, f"present.{i}.value": value}
        return {"logits": self.head(self.norm(x)[:, -1:]), **present}


def plain_model(files: Sequence[Path] = (), **sizes: Any) -> Model:
    """A decoder as a factory returns it."""
    model = make(**sizes)
    model.module.__class__ = PlainDecoder
    model.files = files
    return model
