"""Mutants that no test can kill, because they do what the original does; each with its reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """One entry of ``equivalent.toml``; it holds as long as the line reads as it did.

    Attributes:
        before, after: the line without its indentation, and what the mutant made of it.
    """

    file: str
    before: str
    after: str
    why: str


def read_equivalent(path: Path = FILE) -> list[Equivalent]:
    """Every entry."""
    return [Equivalent(**entry) for entry in tomllib.loads(path.read_text())["equivalent"]]
