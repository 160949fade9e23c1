"""A causal language model of transformers, called with caches and for the last token only."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.frontend.huggingface.library import reason
from strop.compiler.util.errors import StropError, UsageError

Layers = dict[int, tuple[Tensor, Tensor]]
"""Keys and values, [batch, heads, places, size] each, by the number of the layer."""
KINDS = ("key", "value")
# Two tokens that every vocabulary has.
_PROBE = (0, 1)


class Borrowed(nn.Module):
    """A module that calls one of transformers in its own way, with the names of its weights."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        for name, part in whole.named_children():
            self.add_module(name, part)
        # In a tuple it is no part of this module, and adds nothing to the names of its weights.
        self._whole = (whole,)

    @property
    def whole(self) -> Any:
        """The module that is called."""
        return self._whole[0]


class CachedDecoder(Borrowed):
    """Takes ids, a mask and the caches of every layer; gives scores and longer caches.

    Names and shapes are those of ``Generation``. Weights keep the names that they have in the
    language model.

    Attributes:
        caches: by input, an empty cache of one row, [1, heads, 0, size].
        presents: by input, the output that continues it.
    """

    def __init__(self, language_model: Any, layers: Layers) -> None:
        super().__init__(language_model)
        self._layers = tuple(layers)
        self.caches = empty_caches(layers)
        self.presents = {name: f"present.{name.partition('.')[2]}" for name in self.caches}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor
    ) -> dict[str, Tensor]:
        """Args: as ``Generation`` says. Returns: ``logits`` and the caches."""
        from strop.compiler.frontend.huggingface.kv_cache import cache_of

        cache = cache_of(by_layer(self._layers, [past[name] for name in self.caches]))
        logits = last_scores(self.whole, input_ids, attention_mask, cache)
        present = dict(zip(self.presents.values(), contents(cache, self._layers)))
        return {"logits": logits, **present}


def empty_caches(layers: Layers) -> dict[str, Tensor]:
    """By input, a cache of one row without places, [1, heads, 0, size]."""
    return {
        f"past_key_values.{i}.{kind}": cache[:1, :, :0]
        for i, pair in enumerate(layers.values())
        for kind, cache in zip(KINDS, pair)
    }


def by_layer(numbers: Sequence[int], tensors: Sequence[Tensor]) -> Layers:
    """Keys and values in turn, as they follow each other in a call, by the number of the layer."""
    return dict(zip(numbers, zip(tensors[::2], tensors[1::2])))


def contents(cache: Any, numbers: Iterable[int]) -> list[Tensor]:
    """The keys and values of some layers in turn."""
    layers = [cache.layers[i] for i in numbers]
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def filled(cache: Any) -> Layers:
    """The layers of a cache that hold something."""
    found = {i: (layer.keys, layer.values) for i, layer in enumerate(cache.layers)}
    return {i: pair for i, pair in found.items() if pair[0] is not None}


def last_scores(language_model: Any, ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Scores of the token that follows the last real one of each row.

    Args:
        language_model: of transformers, with a head.
        ids: of the new tokens, [batch, seq] int64.
        mask: [batch, past + seq] int64, 0 at padding.
        cache: holds keys and values of the places before; those of the new ones are added.

    Returns:
        [batch, 1, vocabulary].
    """
    from strop.compiler.frontend.huggingface.kv_cache import masks_from

    with only_last(language_model, mask), masks_from(mask, attention_of(language_model)):
        result = language_model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **positions_of(language_model, mask, ids.shape[1]),
        )
    logits: Tensor = result.logits
    return logits


def attention_of(module: Any) -> str:
    """How attention is computed, as the config names it."""
    return str(module.config._attn_implementation)


@contextmanager
def only_last(language_model: Any, mask: Tensor) -> Iterator[None]:
    """Inside, the head is given the last real token of each row and no others.

    What follows the head, such as a scale or a limit of the scores, stays behind it.
    """

    def chosen(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return torch.ops.strop.last_token(args[0], mask), *args[1:]

    hook = language_model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


def positions_of(
    module: Any, mask: Tensor, seq: int, name: str = "position_ids"
) -> dict[str, Tensor]:
    """The positions of the last ``seq`` places, for a module that takes them by this name."""
    if name not in inspect.signature(module.forward).parameters:
        return {}
    return {name: torch.ops.strop.cache_positions(mask, seq)}


def cached_decoder(language_model: Any, what: str) -> CachedDecoder:
    """The decoder of a language model, whose caches are found by calling it on two tokens.

    Args:
        language_model: of transformers, in eval mode.
        what: it is called in messages.

    Raises:
        UsageError: it has no head, or keeps other things than keys and values.
    """
    require_head(language_model, what)
    try:
        with torch.no_grad():
            return _tried(language_model)
    # The model may raise anything when it is given a cache that is not its own.
    except Exception as error:
        kind = type(language_model).__name__
        why = str(error) if isinstance(error, StropError) else reason(error)
        raise UsageError(
            f"{what}: {kind} cannot be built with caches of keys and values: {why}. A factory can "
            "declare other caches; '#text-scoring' builds a causal language model without any"
        ) from error


def _tried(language_model: Any) -> CachedDecoder:
    """The decoder, after two tokens without a cache and two behind them."""
    from strop.compiler.frontend.huggingface.kv_cache import growing_cache

    cache, ids = growing_cache(), torch.tensor([_PROBE])
    last_scores(language_model, ids, torch.ones_like(ids), cache)
    layers = filled(cache)
    if not layers:
        raise UsageError("it keeps none")
    decoder = CachedDecoder(language_model, layers).eval()
    past = dict(zip(decoder.caches, contents(cache, layers)))
    decoder(ids, torch.ones(1, 2 * len(_PROBE), dtype=torch.int64), **past)
    return decoder


def require_head(module: Any, what: str) -> None:
    """Check that a module gives scores of tokens by a head of its own.

    Raises:
        UsageError: it does not.
    """
    if getattr(module, "get_output_embeddings", lambda: None)() is None:
        kind = type(module).__name__
        raise UsageError(f"{what}: {kind} has no head that gives scores of the next token")
