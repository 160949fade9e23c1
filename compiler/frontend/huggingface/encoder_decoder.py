"""An encoder-decoder of transformers as two modules that share weights.

The encoder gives the keys and values that the decoder looks at, once for each text or recording;
the decoder is called token by token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strop.compiler.frontend.huggingface.decoder import (
    KINDS,
    Borrowed,
    Layers,
    attention_of,
    by_layer,
    contents,
    empty_caches,
    filled,
    only_last,
    positions_of,
    require_head,
)
from strop.compiler.frontend.huggingface.library import reason
from strop.compiler.util.errors import StropError, UsageError

ENCODER_MASK = "encoder_attention_mask"


class CrossEncoder(Borrowed):
    """Gives keys and values of the source for every layer of the decoder.

    Attributes:
        cross: the names of its outputs, [batch, heads, source, size] each.
    """

    def __init__(self, whole: Any, layers: Layers) -> None:
        super().__init__(whole)
        self._layers = tuple(layers)
        self.cross = [f"cross.{i}.{kind}" for i in range(len(layers)) for kind in KINDS]

    def forward(self, **source: Tensor) -> dict[str, Tensor]:
        """Args: ids or features, and a mask where there is one. Returns: keys and values."""
        cache = run_once(self.whole, source)
        return dict(zip(self.cross, contents(cache.cross_attention_cache, self._layers)))


class CrossDecoder(Borrowed):
    """The decoder: as ``CachedDecoder``, with keys and values of the source beside its own.

    Attributes:
        caches: by input, an empty cache of one row, [1, heads, 0, size].
        presents: by input, the output that continues it.
        cross: the names of inputs for keys and values of the source.
    """

    def __init__(self, whole: Any, own: Layers, cross: Layers, states: int) -> None:
        super().__init__(whole)
        self._layers, self._cross_layers, self._states = tuple(own), tuple(cross), states
        self.caches = empty_caches(own)
        self.presents = {name: f"present.{name.partition('.')[2]}" for name in self.caches}
        self.cross = [f"cross.{i}.{kind}" for i in range(len(cross)) for kind in KINDS]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **given: Tensor
    ) -> dict[str, Tensor]:
        """Args: as ``Generation`` says. Returns: ``logits`` and the caches."""
        from transformers.modeling_outputs import BaseModelOutput

        from strop.compiler.frontend.huggingface.kv_cache import cache_of, masks_from, two_caches

        own = cache_of(by_layer(self._layers, [given[name] for name in self.caches]))
        cross = [given[name] for name in self.cross]
        batch, _, source, _ = cross[0].shape
        # The decoder asks for the size of the encoder's states, and for nothing else of them.
        states = cross[0].new_zeros(batch, source, self._states)
        whole, seq = self.whole, input_ids.shape[1]
        with (
            only_last(whole, attention_mask),
            masks_from(attention_mask, attention_of(whole), crosses=True),
        ):
            result = whole(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=given.get(ENCODER_MASK),
                decoder_input_ids=input_ids,
                decoder_attention_mask=attention_mask,
                past_key_values=two_caches(own, cache_of(by_layer(self._cross_layers, cross))),
                use_cache=True,
                **positions_of(whole, attention_mask, seq, "decoder_position_ids"),
            )
        present = dict(zip(self.presents.values(), contents(own, self._layers)))
        return {"logits": result.logits, **present}


def run_once(whole: Any, source: dict[str, Tensor]) -> Any:
    """Run encoder and decoder on one token; returns both caches of the decoder."""
    from strop.compiler.frontend.huggingface.kv_cache import growing_cache, two_caches

    cache = two_caches(growing_cache(), growing_cache())
    batch = next(iter(source.values())).shape[0]
    start = torch.zeros(batch, 1, dtype=torch.int64)
    whole(**source, decoder_input_ids=start, past_key_values=cache, use_cache=True)
    return cache


def encoder_and_decoder(
    whole: Any, source: dict[str, Tensor], what: str
) -> tuple[CrossEncoder, CrossDecoder]:
    """Both modules of an encoder-decoder, whose caches are found by calling it once.

    Args:
        whole: of transformers, in eval mode.
        source: inputs of the encoder.
        what: it is called in messages.

    Raises:
        UsageError: it has no head, or keeps other things than keys and values.
    """
    require_head(whole, what)
    try:
        with torch.no_grad():
            return _tried(whole, source)
    # The model may raise anything when it is given a cache that is not its own.
    except Exception as error:
        kind = type(whole).__name__
        why = str(error) if isinstance(error, StropError) else reason(error)
        raise UsageError(
            f"{what}: {kind} cannot be built as an encoder and a decoder with caches: {why}; write "
            "a factory that returns Programs"
        ) from error


def _tried(whole: Any, source: dict[str, Tensor]) -> tuple[CrossEncoder, CrossDecoder]:
    """Both modules, after a token without a cache and another behind it."""
    cache = run_once(whole, source)
    own, cross = filled(cache.self_attention_cache), filled(cache.cross_attention_cache)
    if not own or not cross:
        raise UsageError("it keeps no keys and values")
    states = whole.get_encoder()(**source).last_hidden_state.shape[-1]
    encoder, decoder = CrossEncoder(whole, cross), CrossDecoder(whole, own, cross, states)
    past = dict(zip(decoder.caches, contents(cache.self_attention_cache, own)))
    batch = next(iter(past.values())).shape[0]
    mask = torch.ones(batch, 2, dtype=torch.int64)
    of_encoder = {ENCODER_MASK: source["attention_mask"]} if "attention_mask" in source else {}
    decoder(mask[:, 1:], mask, **past, **encoder(**source), **of_encoder)
    return encoder.eval(), decoder.eval()
