"""How long a sequence may be: the model's own limit, as far as it can be checked."""

from __future__ import annotations

from typing import Any

from strop.compiler.frontend.huggingface.settings import number, text_config

# The check runs at the largest size; attention scores and outputs there must fit into memory.
MOST_BYTES = 2 << 30
# Tokenizers without a limit say 10^30.
_SANE = 10**7


def own_limit(module: Any, tokenizer: Any) -> int | None:
    """The longest sequence that the model takes; None if it has no limit.

    Positions come first: from a table of which the first rows are for padding (RoBERTa and its
    like), or from the config; then the tokenizer's limit.
    """
    for name, part in module.named_modules():
        padding = getattr(part, "padding_idx", None)
        if name.endswith("position_embeddings") and type(padding) is int:
            return int(part.weight.shape[0]) - padding - 1
    text = text_config(module.config)
    for value in (
        number(text, "max_position_embeddings"),
        number(text, "n_positions") if _has_positions(module) else None,
        number(text, "max_seq_len"),
        number(tokenizer, "model_max_length"),
    ):
        if value and value < _SANE:
            return value
    return None


def _has_positions(module: Any) -> bool:
    """Whether there is a table of positions; T5's configs give a number and have none."""
    return any("position" in name or "wpe" in name for name, _ in module.named_parameters())


def checked_limit(module: Any, rows: int, outputs: int, limit: int) -> int:
    """The largest power of two up to a limit, or the limit, at which the check fits into memory.

    Args:
        module: with a config that counts attention heads.
        rows: sequences in the largest batch that is checked.
        outputs: numbers that the model gives for each token.
        limit: the model's own.
    """
    heads = number(text_config(module.config), "num_attention_heads") or 1

    def fits(length: int) -> bool:
        return 4 * rows * length * max(heads * length, outputs) <= MOST_BYTES

    if fits(limit):
        return limit
    powers = [1 << n for n in range(4, 21) if 1 << n < limit]
    return max([n for n in powers if fits(n)], default=16)
