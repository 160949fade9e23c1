"""Read values of an untrusted config: a value of a wrong type counts as missing."""

from __future__ import annotations

from typing import Any


def text_config(config: Any) -> Any:
    """The part of a config that describes the model of texts."""
    find = getattr(config, "get_text_config", None)
    return find() if find else config


def vision_config(config: Any) -> Any:
    """The part of a config that describes the model of images."""
    return getattr(config, "vision_config", None) or config


def number(config: Any, *names: str) -> int | None:
    """The first of these settings that is a whole number, not negative; None if none is."""
    values = (getattr(config, name, None) for name in names)
    return next((v for v in values if type(v) is int and v >= 0), None)


def pair(size: Any) -> tuple[int, int] | None:
    """Height and width, written in any of the ways that people write them."""
    if type(size) is int:
        values: tuple[Any, ...] = (size, size)
    elif isinstance(size, (list, tuple)):
        values = tuple(size)
    else:
        get = getattr(size, "get", None) or (lambda name: getattr(size, name, None))
        edge = get("shortest_edge")
        values = (get("height") or edge, get("width") or edge)
    whole = len(values) == 2 and all(type(v) is int and 0 < v <= 1 << 14 for v in values)
    return (values[0], values[1]) if whole else None
