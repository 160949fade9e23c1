"""How to train: when to stop, how fast to learn, what to hold out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from strop.compiler.util.errors import UsageError

Schedule = Literal["cosine", "linear", "constant"]

_LEAST_ABOVE_ZERO: tuple[str, ...] = ("lr", "accumulate", "check_every")
_LEAST_ZERO: tuple[str, ...] = (
    "steps",
    "epochs",
    "minutes",
    "weight_decay",
    "clip",
    "patience",
    "most_held_out",
)


@dataclass(frozen=True)
class Policy:
    """When training ends, and what each step does.

    Training ends at the first of ``steps``, ``epochs`` and ``minutes`` that is reached; 0 is no
    limit, and at least one must be set. What ends by the clock differs from run to run.

    Attributes:
        steps: most updates of the weights.
        epochs: most passes over the data; may be a fraction.
        minutes: most wall time, in minutes, over all runs of an interrupted training.
        lr: the highest learning rate.
        warmup: share of the training in which the learning rate rises from 0, in [0, 1).
        schedule: how it falls afterwards, to 0 at the end.
        weight_decay: of AdamW; applied to weights of two and more axes only.
        betas: of AdamW.
        accumulate: batches in one update; their mean loss is minimised. Several processes share
            them.
        clip: largest norm of all gradients together; 0 leaves them as they are.
        bf16: compute the loss under bfloat16 autocast; weights and updates stay float32.
        seed: of the order of batches, and of what the loss draws.
        held_out: share of the batches that are not trained on and judge the weights, in [0, 0.5].
        most_held_out: how many batches are held out at most.
        check_every: updates between two validations.
        patience: validations without a better result after which training ends; 0 never ends it.
    """

    steps: int = 1000
    epochs: float = 0.0
    minutes: float = 0.0
    lr: float = 3e-4
    warmup: float = 0.05
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    accumulate: int = 1
    clip: float = 1.0
    bf16: bool = False
    seed: int = 0
    held_out: float = 0.1
    most_held_out: int = 32
    check_every: int = 100
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that train nothing.

        Raises:
            UsageError: a number is out of its range, or no end is set.
        """
        for name in _LEAST_ABOVE_ZERO:
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in _LEAST_ZERO:
            self._require(name, getattr(self, name) >= 0, "0 or above")
        self._require("warmup", 0 <= self.warmup < 1, "at least 0 and below 1")
        self._require("held_out", 0 <= self.held_out <= 0.5, "between 0 and 0.5")
        if not (self.steps or self.epochs or self.minutes):
            raise UsageError("training has no end: set steps, epochs or minutes above 0")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UsageError(f"{name} is {getattr(self, name)}; it must be {wanted}")

    def done(self, updates: int, passes: float, seconds: float) -> Mapping[str, float]:
        """How much of each limit is used up, as a share that is 1 or more where it is reached."""
        used = {
            "steps": (updates, self.steps),
            "epochs": (passes, self.epochs),
            "minutes": (seconds / 60, self.minutes),
        }
        return {name: value / limit for name, (value, limit) in used.items() if limit}

    def lr_at(self, share: float) -> float:
        """The learning rate when a share of the training is done."""
        if share < self.warmup:
            return self.lr * share / self.warmup
        if self.schedule == "constant":
            return self.lr
        left = 1 - (min(share, 1.0) - self.warmup) / (1 - self.warmup)
        return self.lr * (left if self.schedule == "linear" else _cosine(left))


def _cosine(left: float) -> float:
    """Half a cosine wave from 1 to 0 (Loshchilov and Hutter, SGDR, 2017, without restarts)."""
    return 0.5 * (1 - math.cos(math.pi * left))
