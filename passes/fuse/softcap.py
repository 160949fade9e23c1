"""Attention scores bounded by a tanh: ``softcap * tanh(x / softcap)``, arXiv:2408.00118."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.passes.fuse.score_mask import scale_of
from strop.passes.fuse.scores import Bounded, Scaled, ScaledRows, ScoreStep

Steps = Sequence[ScoreStep]


@dataclass(frozen=True)
class Capped:
    """What was done to scores, cut at their tanh.

    Attributes:
        after: the steps after the tanh; all of them without one.
        softcap: the bound of the scores; 0 without a tanh.
    """

    after: Steps
    softcap: float


def apart(steps: Steps) -> Capped | str:
    """Steps cut at their tanh, or the condition that fails, in words.

    ``c tanh(s)`` is ``|c| tanh(c s / |c|)``: the bound is above 0, and the product of all factors
    before and after the tanh is the scale.
    """
    places = [i for i, step in enumerate(steps) if isinstance(step, Bounded)]
    if not places:
        return Capped(steps, 0.0)
    before, after = steps[: places[0]], steps[places[0] + 1 :]
    if len(places) > 1:
        return "the scores are bounded by a tanh more than once"
    if not all(isinstance(step, (Scaled, ScaledRows)) for step in before):
        return "a bias or a mask is added to the scores before they are bounded by a tanh"
    if any(isinstance(step, ScaledRows) for step in after):
        return "the scores are scaled by a tensor after they are bounded by a tanh"
    softcap = float(abs(scale_of(after)))
    return Capped(after, softcap) if softcap else "bounded scores are multiplied by 0"
