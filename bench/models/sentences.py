"""Real English sentences that every CPython ships: the language reference behind ``help()``."""

from __future__ import annotations

import re


def sentences(count: int) -> list[str]:
    """The first ``count`` prose sentences of 40 to 200 characters, in a fixed order."""
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for name in sorted(topics):
        text = re.sub(r"[*`_|]+", "", topics[name])
        for paragraph in re.split(r"\n\s*\n", text):
            flat = " ".join(paragraph.split())
            for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", flat):
                if re.fullmatch(r"[A-Z][\w ,;'()-]{38,198}[.!?]", sentence):
                    found.setdefault(sentence)
    return list(found)[:count]
