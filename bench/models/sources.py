"""The models as sources that the command line takes: ``FILE.py:make``."""

from __future__ import annotations

from pathlib import Path


def source_of(module: str, factory: str) -> str:
    """The source of a factory in a module of this folder."""
    return f"{Path(__file__).with_name(module)}.py:{factory}"
