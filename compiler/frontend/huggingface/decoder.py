"""A causal language model of transformers, called with caches and for the last token only."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.frontend.huggingface.library import reason
from strop.compiler.util.errors import StropError, UsageError

Layers = dict[int, tuple[Tensor, Tensor]]
"""Keys and values, [batch, heads, places, size] each, by the number of the layer."""
_KINDS = ("key", "value")
# Two tokens that every vocabulary has.
_PROBE = (0, 1)


class CachedDecoder(nn.Module):
    """Takes ids, a mask and the caches of every layer; gives scores and longer caches.

    Names and shapes are those of ``Generation``. Weights keep the names that they have in the
    language model.

    Attributes:
        caches: by input, an empty cache of one row, [1, heads, 0, size].
        presents: by input, the output that continues it.
    """

    def __init__(self, language_model: Any, layers: Layers) -> None:
        super().__init__()
        for name, part in language_model.named_children():
            self.add_module(name, part)
        # In a tuple it is no part of this module, and adds nothing to the names of its weights.
        self._whole = (language_model,)
        self._layers = tuple(layers)
        self.caches = {
            f"past_key_values.{i}.{kind}": cache[:, :, :0]
            for i, pair in enumerate(layers.values())
            for kind, cache in zip(_KINDS, pair)
        }
        self.presents = {name: f"present.{name.partition('.')[2]}" for name in self.caches}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor
    ) -> dict[str, Tensor]:
        """Args: as ``Generation`` says. Returns: ``logits`` and the caches."""
        from strop.compiler.frontend.huggingface.kv_cache import cache_of

        given = [past[name] for name in self.caches]
        cache = cache_of(dict(zip(self._layers, zip(given[::2], given[1::2]))))
        logits = last_scores(self._whole[0], input_ids, attention_mask, cache)
        layers = [cache.layers[i] for i in self._layers]
        present = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return {"logits": logits, **dict(zip(self.presents.values(), present))}


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

    def only_last(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return torch.ops.strop.last_token(args[0], mask), *args[1:]

    # What follows the head, such as a scale or a limit of the scores, stays behind it.
    hook = language_model.get_output_embeddings().register_forward_pre_hook(only_last)
    try:
        with masks_from(mask, language_model.config._attn_implementation):
            result = language_model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **positions_of(language_model, mask, ids.shape[1]),
            )
    finally:
        hook.remove()
    logits: Tensor = result.logits
    return logits


def positions_of(language_model: Any, mask: Tensor, seq: int) -> dict[str, Tensor]:
    """The positions of the last ``seq`` places, for a model that takes them."""
    if "position_ids" not in inspect.signature(language_model.forward).parameters:
        return {}
    return {"position_ids": torch.ops.strop.cache_positions(mask, seq)}


def cached_decoder(language_model: Any, what: str) -> CachedDecoder:
    """The decoder of a language model, whose caches are found by calling it on two tokens.

    Args:
        language_model: of transformers, in eval mode.
        what: it is called in messages.

    Raises:
        UsageError: it has no head, or keeps other things than keys and values.
    """
    from strop.compiler.frontend.huggingface.kv_cache import growing_cache

    kind = type(language_model).__name__
    if getattr(language_model, "get_output_embeddings", lambda: None)() is None:
        raise UsageError(f"{what}: {kind} has no head that gives scores of the next token")
    cache = growing_cache()
    ids = torch.tensor([_PROBE])
    try:
        with torch.no_grad():
            last_scores(language_model, ids, torch.ones_like(ids), cache)
    # The model may raise anything when it is given a cache that is not its own.
    except Exception as error:
        why = str(error) if isinstance(error, StropError) else reason(error)
        raise UsageError(f"{what}: {kind} {_REFUSED}: {why}. {_WAY_OUT}") from error
    layers = {i: (layer.keys, layer.values) for i, layer in enumerate(cache.layers)}
    layers = {i: pair for i, pair in layers.items() if pair[0] is not None}
    if not layers:
        raise UsageError(f"{what}: {kind} {_REFUSED}: it keeps none. {_WAY_OUT}")
    return CachedDecoder(language_model, layers).eval()


_REFUSED = "cannot be built with caches of keys and values"
_WAY_OUT = (
    "A factory can declare other caches; '#text-scoring' builds a causal language model without any"
)
