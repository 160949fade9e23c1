"""What the zoo knows of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from strop.compiler import Model


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo.

    Attributes:
        make: makes the model, with its dynamic dims, the same each time.
        attention: how many attention operators the built artifact should have.
    """

    make: Callable[[], Model]
    attention: int

    def static(self) -> Model:
        """The model at the sizes of its example inputs only."""
        model = self.make()
        model.dynamic = None
        return model


def attention_found(manifest: Mapping[str, Any]) -> int:
    """Rewrites by rules for attention, from the pass counters of a manifest."""
    return sum(
        count
        for record in manifest["passes"]
        for rule, count in record["rewrites"].items()
        if rule.startswith("attention")
    )
