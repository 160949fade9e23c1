"""A folder of a causal language model as a decoder with caches: how it is called, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strop.compiler.frontend.decoder_inputs import DecoderInputs
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.decoder import CachedDecoder, cached_decoder, positions_of
from strop.compiler.frontend.huggingface.inputs_text import asked_length, token_rows
from strop.compiler.frontend.huggingface.limits import own_limit
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.rotary import settle_rotary
from strop.compiler.frontend.huggingface.settings import number, text_config
from strop.compiler.frontend.model import DimSpec, Model
from strop.compiler.util.errors import UsageError

# For a model that has no limit of its own.
_USUAL_CONTEXT = 2048
# Examples of a prompt, of a step behind it, and of several tokens behind others.
_EXAMPLES = ((3, 9, 14), (3, 32, 0), (3, 1, 32), (2, 16, 24))
_SIZES = ("num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size")
# Of the largest score, by the dtype that the model computes in.
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_16_BIT = 5e-2


def text_generation(checkpoint: Checkpoint, tokenizer: Any, request: Request) -> Model:
    """The decoder of a folder, without files and labels.

    Raises:
        UsageError: it has no vocabulary, takes less than was asked for, or cannot be called with
            caches of keys and values.
    """
    module = checkpoint.module
    if not number(text_config(module.config), "vocab_size"):
        raise UsageError(f"{request}: its vocabulary is empty: 'vocab_size' in config.json is 0")
    context, notes = _context(module, tokenizer, request)
    decoder = cached_decoder(module, str(request))
    if tokenizer is None:
        notes.append("there is no tokenizer in the folder: the artifact takes and gives ids only")
    generation = _generation(decoder, module, tokenizer, context)
    notes += _unknown_ends(module, tokenizer, generation)
    text = _text(token_rows(checkpoint, tokenizer, context))
    inputs_at = DecoderInputs(decoder, generation, text, decoder.caches)
    require_equal(inputs_at, module, str(request))
    batches = [inputs_at(sizes) for sizes in _example_sizes(context)]
    return Model(
        decoder,
        example_inputs=batches[0],
        dynamic=decoder_axes(generation),
        calibration=batches,
        inputs_at=inputs_at,
        generation=generation,
        notes=[*checkpoint.notes, *notes],
    )


def _context(module: Any, tokenizer: Any, request: Request) -> tuple[int, list[str]]:
    """The most tokens of a text, its prompt among them."""
    limit = own_limit(module, tokenizer)
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


def _generation(decoder: CachedDecoder, module: Any, tokenizer: Any, context: int) -> Generation:
    config = text_config(module.config)
    settings = [getattr(module, "generation_config", None), config, tokenizer]
    words = number(config, "vocab_size") or 0
    eos = [token for token in token_ids(settings, "eos_token_id") if token < words]
    pad = token_ids(settings, "pad_token_id")
    bos = token_ids(settings, "bos_token_id")
    first = next(iter(decoder.caches.values()))
    sizes = {name: number(config, name) for name in _SIZES}
    return Generation(
        caches=decoder.presents,
        context=context,
        eos=tuple(eos),
        # Its places are masked: any token of the vocabulary will do.
        pad=next((token for token in (*pad, *eos) if token < words), 0),
        bos=bos[0] if bos else None,
        family=str(module.config.model_type),
        sizes={name: value for name, value in sizes.items() if value is not None}
        | {"num_key_value_heads": first.shape[1], "head_size": first.shape[3]},
    )


def token_ids(settings: Sequence[Any], name: str) -> tuple[int, ...]:
    """Ids that the first of some settings names, one or several; () where none does."""
    for values in settings:
        found = getattr(values, name, None)
        several = found if isinstance(found, (list, tuple)) else [found]
        if several and all(type(one) is int and one >= 0 for one in several):
            return tuple(several)
    return ()


def _unknown_ends(module: Any, tokenizer: Any, generation: Generation) -> list[str]:
    """A note for each end token that the vocabulary does not have."""
    settings = [getattr(module, "generation_config", None), text_config(module.config), tokenizer]
    unknown = [t for t in token_ids(settings, "eos_token_id") if t not in generation.eos]
    return [
        f"texts do not end at {token}, which eos_token_id names: it is no token of the model"
        for token in unknown
    ]


def _text(rows: Sequence[Sequence[int]]) -> Tensor:
    """All example texts one after another, in rows that start at each of them."""
    length = sum(map(len, rows))
    joined = [token for row in rows for token in row] * 2
    starts = [sum(map(len, rows[:i])) for i in range(len(rows))]
    return torch.tensor([joined[start : start + length] for start in starts])


def decoder_axes(generation: Generation) -> dict[str, dict[int, DimSpec]]:
    """The dims of a decoder's inputs; past and new tokens together are no more than its context."""
    context = generation.context
    cache: dict[int, DimSpec] = {0: "batch", 2: ("past", 0, context - 1)}
    return {
        generation.ids: {0: "batch", 1: ("seq", 1, context)},
        generation.mask: {0: "batch", 1: ("past + seq", 1, context)},
        **{name: dict(cache) for name in generation.caches},
    }


def _example_sizes(context: int) -> list[dict[str, int]]:
    """Sizes of the examples, made smaller where the context is."""
    seqs = [(batch, min(seq, max(context // 2, 1)), past) for batch, seq, past in _EXAMPLES]
    return [
        {"batch": batch, "seq": seq, "past": min(past, context - seq)} for batch, seq, past in seqs
    ]


def require_equal(inputs_at: DecoderInputs, language_model: Any, what: str) -> None:
    """Check that a decoder gives the scores of the language model without caches.

    Raises:
        UsageError: it does not.
    """
    context = min(inputs_at.generation.context, 12)
    seq = max(context // 4, 1)
    inputs = inputs_at({"batch": 2, "seq": seq, "past": context - seq})
    with torch.no_grad():
        got = inputs_at.module(**inputs)["logits"][:, -1]
        for scores, text, mask in zip(got, inputs_at.text, inputs[inputs_at.generation.mask]):
            expected = _plain_scores(language_model, text[None, :context][:, mask.ne(0)])
            most = _TOLERANCES.get(expected.dtype, _TOLERANCE_16_BIT) * expected.abs().max()
            if not (scores - expected).abs().max() <= most:
                raise UsageError(
                    f"{what}: {type(language_model).__name__} gives other scores when it is called "
                    "with caches than it gives for the whole text; write a factory that declares "
                    "what it keeps"
                )


def _plain_scores(language_model: Any, ids: Tensor) -> Tensor:
    """Of the token after a text without padding, [1, tokens] int64: [vocabulary]."""
    mask = torch.ones_like(ids)
    positions = positions_of(language_model, mask, ids.shape[1])
    logits: Tensor = language_model(input_ids=ids, attention_mask=mask, **positions).logits
    return logits[0, -1]
