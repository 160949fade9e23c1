"""Which emitter a target takes where an operator has several: measurement, not opinion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from strop.compiler.text import op_name


@dataclass(frozen=True)
class Choices:
    """Measured medians in milliseconds: operator -> variant -> sum over measured shapes."""

    milliseconds: dict[str, dict[str, float]]

    def variant(self, target: Any, variants: list[str]) -> str:
        """The fastest measured variant, or the first one where nothing was measured."""
        measured = self.milliseconds.get(op_name(target), {})
        known = [v for v in variants if v in measured]
        return min(known, key=lambda v: measured[v]) if known else variants[0]


def shipped(target: str) -> Choices:
    """The table that ships with strop for a target, measured by ``strop tune``."""
    text = resources.files("strop.compiler.lower.onnx").joinpath(f"measured_{target}.json")
    return Choices(json.loads(text.read_text())["milliseconds"])
