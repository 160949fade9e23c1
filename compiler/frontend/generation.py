"""How a model is called token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Generation:
    """How a decoder with caches is called, and where its texts start and end.

    A decoder takes the ids of new tokens, [batch, seq], a mask, [batch, past + seq], that is 0 at
    padding, and caches, [batch, heads, past, size]; it gives scores of the next token for the last
    real token of each row, [batch, 1, vocabulary], and the caches with its own keys and values
    added, [batch, heads, past + seq, size].

    Attributes:
        caches: inputs that hold what earlier calls computed, and the outputs that continue them.
        context: the most tokens that a cache is made for.
        eos: ids that end a text; none where it only ends by length.
        pad: the id that fills rows; its places are 0 in the mask.
        bos: the id that texts start with, where there is one.
        start: ids that a decoder starts with; () where it starts with the prompt.
        suppressed: ids that no text may hold.
        suppressed_first: ids that no text may begin with, beside those.
        last: the id of the last token of a text that its length ends; None where it may be any.
        ids: the name of the input for ids.
        mask: the name of the input for the mask.
        logits: the name of the output for scores.
        cross: inputs of a decoder that an encoder computes once for each text, and the outputs of
            the encoder that give them.
        family: transformers' ``model_type``, for runtimes that ask for it; "" where there is none.
        sizes: what such runtimes want to know of the model, such as ``num_attention_heads``.
    """

    caches: Mapping[str, str]
    context: int
    eos: Sequence[int] = ()
    pad: int = 0
    bos: int | None = None
    start: Sequence[int] = ()
    suppressed: Sequence[int] = ()
    suppressed_first: Sequence[int] = ()
    last: int | None = None
    ids: str = "input_ids"
    mask: str = "attention_mask"
    logits: str = "logits"
    cross: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)
