"""Why a call could not be lowered by a row; torch may still run it."""

from __future__ import annotations


class NotLowered(Exception):
    """Raised by what does not cover these arguments; carries the reason."""
