"""Text from outside for rich: without markup and without control characters."""

from __future__ import annotations

from rich.text import Text

from strop.compiler.util.visible import visible


def shown(text: object, style: str = "") -> Text:
    """Any text as it may be shown: in one style, without markup, on as many lines as it has."""
    return Text(visible(str(text), lines=True), style)
