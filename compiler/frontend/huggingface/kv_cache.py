"""What transformers' decoders are given in the place of their own caches and masks.

This module imports transformers: it is imported late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.util.errors import UnsupportedError


class GrowingLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, [batch, heads, places, size]; new ones are added behind.

    Transformers' own layer also concatenates an empty tensor, and drops what is out of a window.
    """

    is_sliding = False

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = keys is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Start with nothing."""
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Add the keys and values of new places; returns those of all places."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        self.keys = torch.cat([self.keys, key_states], 2)
        self.values = torch.cat([self.values, value_states], 2)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many places a mask has, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """How many places there are."""
        return 0 if self.keys is None else self.keys.shape[2]

    def get_max_length(self) -> int:
        """No largest length: -1."""
        return -1

    # Its name in older releases of transformers.
    get_max_cache_shape = get_max_length


def growing_cache() -> Any:
    """A cache that makes a layer for each one that asks for it."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def cache_of(layers: Mapping[int, tuple[Tensor, Tensor]]) -> Any:
    """A cache with given contents, by the number of the layer."""
    count = max(layers) + 1
    return Cache(layers=[GrowingLayer(*layers.get(i, ())) for i in range(count)])


def two_caches(own: Any, cross: Any) -> Any:
    """The cache of a decoder that also keeps what it made of an encoder's states."""
    return EncoderDecoderCache(own, cross)


# Which functions make up a mask by which a token sees the places up to its own, or some of them.
_PLAIN = frozenset({"causal_mask_function", "and_masks", "sliding_window_overlay"})
_OF_AN_ENCODER = frozenset({"bidirectional_mask_function"})


@contextmanager
def masks_from(mask: Tensor, implementation: str, crosses: bool = False) -> Iterator[None]:
    """Inside, every attention mask that transformers makes comes from a mask of places.

    Args:
        mask: [batch, past + seq] int, 0 at padding.
        implementation: of attention, as the config names it: "sdpa" or "eager".
        crosses: whether the decoder also looks at an encoder's states, all but padding.
    """

    def made(
        q_length: int,
        mask_function: Any,
        attention_mask: Tensor | None = None,
        local_size: int | None = None,
        **rest: Any,
    ) -> Tensor | None:
        names = _names(mask_function)
        if names <= _PLAIN:
            seen: Tensor = torch.ops.strop.cache_mask(mask, q_length, local_size)
        elif names == _OF_AN_ENCODER and crosses:
            if attention_mask is None:
                return None
            seen = attention_mask.ne(0)[:, None, None, :].expand(-1, -1, q_length, -1)
        else:
            raise UnsupportedError("its attention sees other places than those before, or a window")
        if implementation == "sdpa":
            return seen
        return torch.where(seen, 0.0, torch.finfo(rest["dtype"]).min).to(rest["dtype"])

    ALL_MASK_ATTENTION_FUNCTIONS[implementation] = made
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS[implementation]


def _names(function: Any) -> set[str]:
    """The names of a function and of those that it was made of."""
    found = {function.__qualname__.partition(".")[0]}
    for cell in function.__closure__ or ():
        held = cell.cell_contents
        for part in held if isinstance(held, (tuple, list)) else (held,):
            found |= _names(part) if callable(part) else set()
    return found
