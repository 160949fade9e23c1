"""Why a call could not be lowered in one way; another way may still be tried."""

from __future__ import annotations


class NotLowered(Exception):
    """Raised by an emitter that does not cover these arguments; carries the reason."""


def root_cause(error: BaseException) -> str:
    """The first line of the innermost cause; its type where it says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
