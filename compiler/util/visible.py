"""Text from outside as it can be shown: characters that do not print are shown as escapes."""

from __future__ import annotations


def visible(text: str, lines: bool = False) -> str:
    r"""The text with every character that does not print as its escape: ``\x1b``, ``\u202e``.

    That is control characters, among them those that begin escape sequences, marks that turn the
    direction of writing, characters of no width, and surrogates.

    Args:
        text: any.
        lines: keep the ends of lines and tabs, for text that is not a name.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
