"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def size(count: float | None) -> str:
    """Bytes, decimal: ``801.7 kB``."""
    if count is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def dims(sizes: Mapping[str, int]) -> str:
    """Sizes of dims: ``batch=1 seq=128``."""
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def duration(seconds: float) -> str:
    """Seconds: ``3.39 s``, ``17.5 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def milliseconds(value: float | None) -> str:
    """Milliseconds: ``1.61 ms``."""
    return "–" if value is None else f"{value:.3g} ms"


def change(before: int, after: int) -> str:
    """A difference with its sign: ``−43``, ``+96``, ``0``."""
    return f"{after - before:+,}".replace("-", "−") if after != before else "0"


def size_change(before: int, after: int) -> str:
    """A difference in bytes with its sign."""
    if before == after:
        return "0"
    return ("+" if after > before else "−") + size(abs(after - before))


def error(value: float | None) -> str:
    """An error to two digits; None, which stands for NaN or Inf, in words."""
    if value is None:
        return "not finite"
    return "0" if value == 0 else f"{value:.1e}"


def times(before: float | None, after: float | None, more: str, less: str) -> str:
    """How many times ``before`` is of ``after``: ``3.5 times smaller``."""
    if not before or not after:
        return ""
    ratio = before / after
    if math.isclose(ratio, 1, abs_tol=0.005):
        return "the same"
    return f"{ratio:.3g} times {more}" if ratio > 1 else f"{1 / ratio:.3g} times {less}"
