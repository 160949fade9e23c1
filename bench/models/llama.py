"""Llamas with random weights: for build time and memory, where the values do not matter."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler import Model

SMALL: dict[str, int] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
# 16 layers of these sizes are 0.85 billion weights, 3.4 GB in fp32.
LARGE: dict[str, int] = {
    "hidden_size": 2048,
    "intermediate_size": 5888,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 16384,
}


def llama(layers: int, sizes: dict[str, int]) -> torch.nn.Module:
    """A Llama in eval mode, without a cache, with the library's random initial weights."""
    import transformers

    config = transformers.LlamaConfig(**sizes, num_hidden_layers=layers, use_cache=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: torch.nn.Module = transformers.LlamaForCausalLM(config)
    return module.eval()


def model(layers: int, sizes: dict[str, int], longest: int = 64, rows: int = 4) -> Model:
    """A Llama with dynamic batch and sequence, up to ``rows`` rows of ``longest`` tokens."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, sizes["vocab_size"], (2, 24), generator=generator)
    axes: dict[int, Any] = {0: ("batch", 1, rows), 1: ("seq", 2, longest)}
    return Model(
        llama(layers, sizes),
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamic={"input_ids": axes, "attention_mask": axes},
    )


def large() -> Model:
    """The factory of the memory benchmark: 16 layers, 3.4 GB in fp32."""
    return model(16, LARGE)


def wide() -> Model:
    """The factory of the check's costs: its largest logits would be 17 GB."""
    return model(16, SMALL | {"vocab_size": 32_000}, longest=2048, rows=64)


def small() -> Model:
    """The factory of the decoders suite: 8 layers, 22 million weights; the forward of a prompt."""
    return model(8, SMALL, longest=256)
