"""A folder of a causal language model as a decoder with caches, and its examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strop.compiler.frontend.decoder_inputs import DecoderInputs
from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.decoder import cached_decoder, positions_of
from strop.compiler.frontend.huggingface.generation_settings import (
    context_of,
    decoder_axes,
    describe,
    require_vocabulary,
)
from strop.compiler.frontend.huggingface.inputs_text import token_rows
from strop.compiler.frontend.huggingface.limits import own_limit
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.model import Model
from strop.compiler.util.errors import UsageError

# Examples of several tokens behind others, of a prompt, and of a step behind it.
_EXAMPLES = ((3, 9, 14), (3, 32, 0), (3, 1, 32))
# Of the largest score: of models in float32, and of those in fewer bits.
_TOLERANCE, _TOLERANCE_16_BITS = 1e-3, 5e-2


def text_generation(checkpoint: Checkpoint, tokenizer: Any, request: Request) -> Model:
    """The decoder of a folder, without files.

    Raises:
        UsageError: it has no vocabulary, takes less than was asked for, or cannot be called with
            caches of keys and values.
    """
    module = checkpoint.module
    require_vocabulary(module, request)
    context, notes = context_of(module, own_limit(module, tokenizer), request)
    decoder = cached_decoder(module, str(request))
    generation, more = describe(module, tokenizer, context, decoder.caches, decoder.presents)
    text = example_text(token_rows(checkpoint, tokenizer, context))
    inputs_at = DecoderInputs(decoder, generation, text, decoder.caches)
    _require_equal(inputs_at, module, request)
    batches = [inputs_at(sizes) for sizes in example_sizes(context)]
    return Model(
        decoder,
        example_inputs=batches[0],
        dynamic=decoder_axes(generation),
        calibration=batches,
        inputs_at=inputs_at,
        generation=generation,
        notes=[*checkpoint.notes, *notes, *more],
    )


def example_text(rows: Sequence[Sequence[int]]) -> Tensor:
    """All example texts one after another, in rows that start at each of them: int64."""
    length = sum(map(len, rows))
    joined = [token for row in rows for token in row] * 2
    starts = [sum(map(len, rows[:i])) for i in range(len(rows))]
    return torch.tensor([joined[start : start + length] for start in starts])


def example_sizes(context: int) -> list[dict[str, int]]:
    """Sizes of the examples, made smaller where the context is."""
    found = []
    for batch, most, past in _EXAMPLES:
        seq = min(most, max(context // 2, 1))
        found.append({"batch": batch, "seq": seq, "past": min(past, context - seq)})
    return found


def _require_equal(inputs_at: DecoderInputs, language_model: Any, request: Request) -> None:
    """Check that a decoder gives the scores of the language model without caches.

    Raises:
        UsageError: it does not.
    """
    context = min(inputs_at.generation.context, inputs_at.text.shape[1], 12)
    seq = max(context // 4, 1)
    inputs = inputs_at({"batch": 2, "seq": seq, "past": context - seq})
    with torch.no_grad():
        got = inputs_at.module(**inputs)["logits"][:, -1]
        for scores, text, mask in zip(got, inputs_at.text, inputs[inputs_at.generation.mask]):
            expected = _plain_scores(language_model, text[None, :context][:, mask.ne(0)])
            require_same_scores(scores, expected, f"{request}: {type(language_model).__name__}")


def require_same_scores(got: Tensor, expected: Tensor, what: str) -> None:
    """Check scores that were computed with caches.

    Args:
        got: [vocabulary].
        expected: those of the whole text at once.
        what: the module is called in the message.

    Raises:
        UsageError: they differ.
    """
    relative = _TOLERANCE if expected.dtype.itemsize >= 4 else _TOLERANCE_16_BITS
    if not (got - expected).abs().max() <= relative * expected.abs().max():
        raise UsageError(
            f"{what} gives other scores when it is called with caches than it gives for the whole "
            "text; write a factory that declares what it keeps"
        )


def _plain_scores(language_model: Any, ids: Tensor) -> Tensor:
    """Of the token after a text without padding, [1, tokens] int64: [vocabulary]."""
    mask = torch.ones_like(ids)
    positions = positions_of(language_model, mask, ids.shape[1])
    logits: Tensor = language_model(input_ids=ids, attention_mask=mask, **positions).logits
    return logits[0, -1]
