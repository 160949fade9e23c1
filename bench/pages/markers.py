"""Generated parts of hand-written pages: between ``<!-- NAME:begin -->`` and its end."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
RESULTS_PAGE = ROOT / "RESULTS.md"


def put(page: Path, name: str, new: str) -> None:
    """Replace the part of a page that has that name."""
    page.write_text(replace_between(page.read_text(), name, new))


def replace_between(text: str, name: str, new: str) -> str:
    """The text with the part of that name replaced.

    Raises:
        ValueError: the text has no such markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"there is no {begin} ... {end}")
    return pattern.sub(lambda _: f"{begin}\n{new}\n{end}", text, count=1)
