"""What training measured: losses, their parts and the learning rate, a line at each validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of the history.

    Attributes:
        update: how many updates were made.
        lr: the learning rate of the last of them.
        loss: the mean on the batches since the line before; None on the first line.
        parts: of that loss, by name.
        validation: the loss on what is held out; None where nothing is.
        validation_parts: of that one.
    """

    update: int
    lr: float
    loss: float | None
    parts: Mapping[str, float]
    validation: float | None
    validation_parts: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """The same for JSON, to six digits."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass
class Means:
    """Running means of a loss and its parts."""

    count: int = 0
    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, loss: float, parts: Mapping[str, float]) -> None:
        """Take in one more loss."""
        self.count += 1
        self.total += loss
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value

    def loss(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.count if self.count else None

    def mean_parts(self) -> dict[str, float]:
        """The mean of each part."""
        return {name: value / self.count for name, value in self.parts.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
