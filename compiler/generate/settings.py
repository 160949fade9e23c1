"""What a caller may choose of a generation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from strop.compiler.util.errors import UsageError

# Where the caller does not say how many tokens to make, and the context has room for them.
DEFAULT_NEW = 256


@dataclass(frozen=True)
class Settings:
    """How tokens are chosen, and when to stop.

    Attributes:
        max_new: the most tokens to make for each prompt; None for what the context has room for,
            at most ``DEFAULT_NEW``.
        temperature: scores are divided by it before one is drawn; 0 takes the most likely token.
        top_k: draw among so many most likely tokens only; 0 for all.
        top_p: draw among the most likely tokens that have this probability together.
        seed: of what is drawn: the same seed gives the same tokens.
        stop: a text ends before any of these strings.
        beams: texts that are kept beside each other in a beam search; 1 for none.
        length_penalty: sums of log probabilities are divided by length to this power.
    """

    max_new: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one of them is out of its range, or two do not go together.
        """
        self._require_ranges()
        if not self.temperature and (self.top_k or self.top_p != 1):
            raise UsageError("top-k and top-p choose among drawn tokens: give a temperature too")
        if self.beams > 1 and self.temperature:
            raise UsageError("a beam search draws no tokens: leave out beams or the temperature")
        if self.beams > 1 and self.stop:
            raise UsageError("a beam search ends at no stop string: leave out beams or stop")

    def _require_ranges(self) -> None:
        least = {"max-new": (self.max_new, 1), "top-k": (self.top_k, 0), "beams": (self.beams, 1)}
        least["seed"] = (self.seed, 0)
        for name, (value, bound) in least.items():
            if value is not None and value < bound:
                raise UsageError(f"{name} is {value}; it is a whole number from {bound} on")
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature}; it is a number from 0 on")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}; it is above 0, and at most 1")
        if not math.isfinite(self.length_penalty):
            raise UsageError(f"length-penalty is {self.length_penalty}; it is a number")
        if any(not text for text in self.stop):
            raise UsageError("a stop string is empty: every text would end at once")
