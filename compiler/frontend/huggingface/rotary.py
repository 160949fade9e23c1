"""Rotary positions that change with the length of a text, made those of texts up to some length.

A cache holds keys with their positions: they cannot change once a text has become longer.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_CHANGING = ("dynamic", "longrope")


def settle_rotary(module: nn.Module, limit: int | None) -> int | None:
    """Let every part use the frequencies of short texts; returns how long these may be.

    Args:
        module: of transformers; parts that look at the length are told not to.
        limit: the longest text that the model takes.

    Returns:
        The length up to which the model itself uses these frequencies; ``limit`` where it always
        does.
    """
    for part in module.modules():
        kinds = getattr(part, "rope_type", None)
        if isinstance(kinds, dict):
            changing = [layer for layer, kind in kinds.items() if _changes(kind)]
            part.rope_type = kinds | dict.fromkeys(changing, "default")  # type: ignore[assignment]
        elif _changes(kinds):
            changing = [None]
            part.rope_type = "default"  # type: ignore[assignment]
        else:
            continue
        for layer in changing:
            limit = _least(limit, _short(part.config, layer))
    return limit


def _changes(kind: Any) -> bool:
    return isinstance(kind, str) and any(name in kind for name in _CHANGING)


def _short(config: Any, layer: str | None) -> int | None:
    """The length from which on frequencies are others; None if the config does not say."""
    settings = getattr(config, "rope_parameters", None) or {}
    settings = settings.get(layer, {}) if layer else settings
    found = settings.get("original_max_position_embeddings") if isinstance(settings, dict) else None
    found = found or getattr(config, "max_position_embeddings", None)
    return found if type(found) is int and found > 0 else None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
