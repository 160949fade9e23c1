"""What a quantized program may lose, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches, on_batch
from strop.compiler.rewriting.context import Batch, Context
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.passes.quantize.control.distance import cosine, kl

Found = Mapping[str, float]
"""What was measured of a program: "cosine", "KL", or the name of the metric."""


@dataclass(frozen=True)
class Loss:
    """How much a quantized program may lose against the one in float.

    Attributes:
        min_cosine: least mean cosine of rows of the outputs; None: not limited.
        max_kl: largest KL divergence of the outputs' softmax, in nats; None: not limited.
        metric: of the model's ``evaluate``; "" for none.
        max_drop: how far that may fall.
        max_rise: how far it may rise, where less is better.
    """

    min_cosine: float | None = None
    max_kl: float | None = None
    metric: str = ""
    max_drop: float | None = None
    max_rise: float | None = None

    def require_limits(self) -> None:
        """Check that something is limited, and that limits of a metric name one.

        Raises:
            UsageError: nothing is, or they do not.
        """
        if bool(self.metric) != (self.max_drop is not None or self.max_rise is not None):
            raise UsageError("metric names what max_drop or max_rise limits: give both")
        if self.min_cosine is None and self.max_kl is None and not self.metric:
            raise UsageError(
                "nothing limits what quantization may cost: give min_cosine, max_kl, or metric "
                "with max_drop or max_rise"
            )


@dataclass(frozen=True)
class Judge:
    """Measures programs against the one in float.

    Attributes:
        loss: what they may lose.
        batches: of the user's data, each with the outputs of the program in float.
        metric: of the program in float; None without one.
    """

    loss: Loss
    batches: Sequence[tuple[Batch, tuple[Tensor, ...]]]
    metric: float | None
    context: Context

    @staticmethod
    @torch.no_grad()
    def of(loss: Loss, program: Program, count: int, context: Context) -> Judge:
        """Run the program in float on the first batches.

        Raises:
            UsageError: the model's ``evaluate`` does not return the metric.
        """
        needed = loss.min_cosine is not None or loss.max_kl is not None
        batches = [(b, on_batch(program, b)) for b in first_batches(context, count) if needed]
        metric = _metric(loss.metric, program, context) if loss.metric else None
        return Judge(loss, batches, metric, context)

    @torch.no_grad()
    def measured(self, program: Program) -> dict[str, float]:
        """What is limited, of one program; the mean over the batches."""
        found: dict[str, list[float]] = {}
        for batch, want in self.batches:
            got = on_batch(program, batch)
            if self.loss.min_cosine is not None:
                found.setdefault("cosine", []).append(1 - cosine(got, want))
            if self.loss.max_kl is not None:
                found.setdefault("KL", []).append(kl(got, want))
        means = {name: sum(values) / len(values) for name, values in found.items()}
        if self.loss.metric:
            means[self.loss.metric] = _metric(self.loss.metric, program, self.context)
        return means

    def missed(self, found: Found) -> list[str]:
        """What misses its limit, in words."""
        loss, missed = self.loss, []
        if loss.min_cosine is not None and not found["cosine"] >= loss.min_cosine:
            missed.append(f"cosine is {found['cosine']:.6g} (min_cosine {loss.min_cosine:g})")
        if loss.max_kl is not None and not found["KL"] <= loss.max_kl:
            missed.append(f"KL is {found['KL']:.4g} (max_kl {loss.max_kl:g})")
        return [*missed, *self._missed_metric(found)]

    def _missed_metric(self, found: Found) -> list[str]:
        if self.metric is None:
            return []
        fell = self.metric - found[self.loss.metric]
        limits = (("max_drop", fell, self.loss.max_drop), ("max_rise", -fell, self.loss.max_rise))
        return [
            f"{self.loss.metric} is {found[self.loss.metric]:.6g}, {self.metric:.6g} in float "
            f"({name} {limit:g})"
            for name, value, limit in limits
            if limit is not None and not value <= limit
        ]


def _metric(name: str, program: Program, context: Context) -> float:
    assert context.evaluate is not None
    found = context.evaluate(program)
    if name not in found:
        raise UsageError(f"evaluate did not return '{name}'{did_you_mean(name, list(found))}")
    return found[name] if math.isfinite(found[name]) else math.nan
