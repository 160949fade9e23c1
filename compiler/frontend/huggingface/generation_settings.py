"""How a decoder of a folder is called: tokens, length and sizes, from config and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.huggingface.inputs_text import asked_length
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.rotary import settle_rotary
from strop.compiler.frontend.huggingface.settings import number, text_config
from strop.compiler.frontend.model import DimSpec
from strop.compiler.util.errors import UsageError

# For a model that has no limit of its own.
_USUAL_CONTEXT = 2048
# Settings of generation that no artifact knows, and their values without effect.
_UNHEEDED = {
    "bad_words_ids": None,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
}
_SIZES = ("num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size")


def require_vocabulary(module: Any, request: Request) -> None:
    """Check that a model has words.

    Raises:
        UsageError: it has none.
    """
    if not number(text_config(module.config), "vocab_size"):
        raise UsageError(f"{request}: its vocabulary is empty: 'vocab_size' in config.json is 0")


def context_of(module: Any, limit: int | None, request: Request) -> tuple[int, list[str]]:
    """The most tokens of a text, its prompt among them, and what the user should know of it.

    Args:
        module: of transformers; rotary positions that change with the length are settled.
        limit: the longest text that the model takes; None if it has no limit.
        request: may ask for less.

    Raises:
        UsageError: the user asks for more.
    """
    notes = []
    if limit is None and request.longest is None:
        limit = _USUAL_CONTEXT
        notes.append(
            f"the model has no longest text of its own; it was built for up to {limit} tokens "
            f"({request},max-length=N asks for another length)"
        )
    fixed = settle_rotary(module, limit)
    if fixed is not None and limit is not None and fixed < limit:
        limit = fixed
        notes.append(
            f"it was built for up to {limit} tokens: beyond them its rotary positions change those "
            "of all tokens, which caches hold already"
        )
    context = asked_length(request, limit)
    assert context is not None
    return context, notes


def describe(
    module: Any,
    tokenizer: Any,
    context: int,
    caches: Mapping[str, Tensor],
    presents: Mapping[str, str],
    **more: Any,
) -> tuple[Generation, list[str]]:
    """How the decoder is called, and a note for each end token that is none.

    Args:
        module: of transformers.
        tokenizer: of the folder; None if it has none.
        context: the most tokens.
        caches: by input, an empty cache, [1, heads, 0, size].
        presents: by input, the output that continues it.
        more: of ``Generation``.
    """
    settings, config = settings_of(module, tokenizer), text_config(module.config)
    words = number(config, "vocab_size") or 0
    ends = token_ids(settings, "eos_token_id")
    eos = _within(ends, words)
    pad = token_ids(settings, "pad_token_id")
    bos = token_ids(settings, "bos_token_id")
    first = next(iter(caches.values()))
    sizes = {name: number(config, name) for name in _SIZES}
    generation = Generation(
        caches=presents,
        context=context,
        eos=eos,
        # Its places are masked: any token of the vocabulary will do.
        pad=next((token for token in (*pad, *eos) if token < words), 0),
        bos=bos[0] if bos else None,
        suppressed=_within(token_ids(settings, "suppress_tokens"), words),
        suppressed_first=_within(token_ids(settings, "begin_suppress_tokens"), words),
        last=next(iter(_within(token_ids(settings, "forced_eos_token_id"), words)), None),
        family=str(module.config.model_type),
        sizes={name: value for name, value in sizes.items() if value is not None}
        | {"num_key_value_heads": first.shape[1], "head_size": first.shape[3]},
        **more,
    )
    notes = [
        f"texts do not end at {token}, which eos_token_id names: it is no token of the model"
        for token in ends
        if token not in eos
    ]
    notes += _unheeded(settings)
    if tokenizer is None:
        notes.append("there is no tokenizer in the folder: the artifact takes and gives ids only")
    return generation, notes


def _unheeded(settings: Sequence[Any]) -> list[str]:
    """A note on what changes transformers' texts of this model, and no artifact's."""
    found = [
        name
        for name, usual in _UNHEEDED.items()
        if any(getattr(one, name, None) not in (None, usual, []) for one in settings)
    ]
    if not found:
        return []
    return [
        f"{', '.join(found)} in the folder's settings: transformers heeds them when it generates, "
        "the artifact does not"
    ]


def _within(tokens: Sequence[int], words: int) -> tuple[int, ...]:
    """Those ids that are tokens of a vocabulary of so many."""
    return tuple(token for token in tokens if token < words)


def settings_of(module: Any, tokenizer: Any) -> list[Any]:
    """Where tokens are named, the most binding first."""
    return [getattr(module, "generation_config", None), text_config(module.config), tokenizer]


def token_ids(settings: Sequence[Any], name: str) -> tuple[int, ...]:
    """Ids that the first of some settings names, one or several; () where none does."""
    for values in settings:
        found = getattr(values, name, None)
        several = found if isinstance(found, (list, tuple)) else [found]
        if several and all(type(one) is int and one >= 0 for one in several):
            return tuple(several)
    return ()


def decoder_axes(generation: Generation) -> dict[str, dict[int, DimSpec]]:
    """The dims of a decoder's inputs; past and new tokens together are no more than its context."""
    context = generation.context
    cache: dict[int, DimSpec] = {0: "batch", 2: ("past", 0, context - 1)}
    return {
        generation.ids: {0: "batch", 1: ("seq", 1, context)},
        generation.mask: {0: "batch", 1: ("past + seq", 1, context)},
        **{name: dict(cache) for name in generation.caches},
    }
