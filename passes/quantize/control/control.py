"""Quantize within a budget: the fewest layers stay in float, weighted by the time they save."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Need, Needs, named
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.options import with_options
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import BudgetError, UsageError, did_you_mean
from strop.passes.quantize.control.budget import Judge, Loss
from strop.passes.quantize.control.choice import Choice, Chooser
from strop.passes.quantize.control.distance import Kind
from strop.passes.quantize.control.ladder import Rung, ladder, ladder_text
from strop.passes.quantize.control.layers import Layer
from strop.passes.quantize.control.savings import Weigh, savings
from strop.passes.quantize.control.scheme import Scheme, takes_layers
from strop.passes.quantize.control.sensitivity import Method, Sweep

# Under this name what was measured is kept in the cache, and in no manifest.
_SAVED = "accuracy-control saved"


@dataclass(frozen=True)
class AccuracyControl(LearningPass):
    """Quantize by another pass, and leave in float the layers that a budget does not let go.

    It holds the pass that quantizes, instead of standing before it: so the choice and the rewriting
    are one step, which is cached, bisected and recorded as a whole, and takes any pass that has the
    options ``only`` and ``keep``. In a recipe it stands in the place of that pass.

    Attributes:
        scheme: the name of the pass that quantizes.
        scheme_options: of that pass.
        min_cosine: least mean cosine of the rows of each output to that in float.
        max_kl: largest KL divergence of softmax of each output from that in float, in nats.
        metric: a metric of the model's evaluate, limited by max_drop or max_rise.
        max_drop: how far it may fall below that of the program in float.
        max_rise: how far it may rise above it, for metrics of which less is better.
        most_kept: the largest share of the layers that may stay in float; one is always quantized.
        method: how the cost of a layer is found: "output" runs the program with that layer
            quantized alone, "gradient" estimates it by derivatives, in a time that does not depend
            on the number of layers.
        weigh: "latency" weighs layers by the time that they save, measured on the target;
            "multiply-adds" by their size, so that the choice is the same in every build.
        batches: how many batches of the calibration data are looked at.
    """

    name = "accuracy-control"
    quantizes = True
    needs: ClassVar[Needs] = (("calibration", "train"),)
    # What quantizes adds biases itself.
    before = ("bias-gelu",)

    scheme: str = "quantize"
    scheme_options: Mapping[str, Any] = field(default_factory=dict)
    min_cosine: float | None = None
    max_kl: float | None = None
    metric: str = ""
    max_drop: float | None = None
    max_rise: float | None = None
    most_kept: float = 1.0
    method: Method = "output"
    weigh: Weigh = "latency"
    batches: int = 8

    def __post_init__(self) -> None:
        """Refuse a scheme that is none, and limits that limit nothing.

        Raises:
            UsageError: with the nearest name that is known.
        """
        self.quantizer()
        self._loss.require_limits()
        if not 0 <= self.most_kept <= 1:
            raise UsageError(f"most_kept is {self.most_kept:g}; it is a share, from 0 to 1")
        if self.batches < 1:
            raise UsageError(f"batches is {self.batches}; at least 1 is needed")

    def quantizer(self) -> Pass:
        """The pass that quantizes.

        Raises:
            UsageError: there is none of that name, or it does not take the options.
        """
        known = {k.name: k for k in import_module("strop.passes").PASSES if takes_layers(k)}
        if self.scheme not in known:
            raise UsageError(
                f"no pass '{self.scheme}' quantizes layers that can be named"
                f"{did_you_mean(self.scheme, list(known))}"
            )
        return with_options(known[self.scheme], self.scheme_options, self.scheme)

    @property
    def _loss(self) -> Loss:
        return Loss(self.min_cosine, self.max_kl, self.metric, self.max_drop, self.max_rise)

    def required(self) -> Needs:
        evaluate: Needs = ("evaluate",) if self.metric else ()
        return tuple(dict.fromkeys((*self.needs, *self.quantizer().required(), *evaluate)))

    def reads(self) -> Sequence[Need]:
        return sorted({n for n in named(self.required()) if n in ("calibration", "train")})

    def refused_by(self, target: Target) -> str | None:
        return self.quantizer().refused_by(target)

    def uses(self) -> Sequence[Any]:
        return self.quantizer().uses()

    def learn(self, program: Program, context: Context) -> Learned:
        """Find the layers to keep.

        Raises:
            BudgetError: the budget is missed however many layers are kept; with the ladder.
        """
        scheme = Scheme.of(self.quantizer(), program, context)
        rungs, weigh = self._ladder(program, scheme, context)
        judge = Judge.of(self._loss, program, self.batches, context)
        most = min(len(rungs) - 1, int(self.most_kept * len(rungs)))
        choice = Chooser(program, scheme, judge, most, context).choose(rungs)
        if choice.missed:
            raise BudgetError(_cannot(rungs, choice, weigh))
        inner = scheme.learned or Learned()
        return Learned(
            {**inner.tensors, _SAVED: torch.tensor([rung.saving for rung in rungs])},
            {"scheme": dict(inner.facts), **_facts(rungs, choice), "weighed_by": weigh},
            (*inner.notes, _told(rungs, choice)),
        )

    def _ladder(
        self, program: Program, scheme: Scheme, context: Context
    ) -> tuple[list[Rung], Weigh]:
        """The layers with what each costs and saves; and by what the savings were found."""
        kind: Kind = "kl" if self.max_kl is not None and self.min_cosine is None else "cosine"
        sweep = Sweep(self.method, kind, self.batches)
        return measured_ladder(program, scheme, sweep, self.weigh, context)

    def apply_learned_in(
        self, program: Program, log: Log, learned: Learned, context: Context
    ) -> None:
        tensors: dict[str, Tensor] = dict(learned.tensors)
        saved = tensors.pop(_SAVED)
        inner = Learned(tensors, learned.facts["scheme"])
        scheme = Scheme(self.quantizer(), inner, context)
        rungs, kept = _rungs(learned.facts, saved)
        weigh = learned.facts["weighed_by"]
        context.say(f"what each layer costs and saves:\n{ladder_text(rungs, weigh, kept)}")
        scheme.rewrite(program, log, kept)


def measured_ladder(
    program: Program, scheme: Scheme, sweep: Sweep, weigh: Weigh, context: Context
) -> tuple[list[Rung], Weigh]:
    """What each layer costs and saves; and whether time was measured for the savings.

    Raises:
        UsageError: the scheme finds no layer to quantize.
    """
    layers = scheme.layers(program)
    costs = sweep.costs(program, scheme, layers, context)
    saved, weighed = savings(program, scheme, layers, context, weigh)
    return ladder(layers, costs, saved), weighed


def _facts(rungs: Sequence[Rung], choice: Choice) -> dict[str, Any]:
    """For the manifest: nothing that was timed."""
    layers = [
        {
            "weights": list(rung.layer.weights),
            "nodes": list(rung.layer.nodes),
            # JSON has no infinity.
            "cost": float(f"{rung.cost:.3g}") if math.isfinite(rung.cost) else None,
            "kept": rung.layer in choice.kept,
        }
        for rung in rungs
    ]
    return {"layers": layers, "found": {n: float(f"{v:.6g}") for n, v in choice.found.items()}}


def _rungs(facts: Mapping[str, Any], saved: Tensor) -> tuple[list[Rung], list[Layer]]:
    """The ladder that was learned, and the layers that are kept."""
    rungs = [
        Rung(
            Layer(tuple(one["weights"]), tuple(one["nodes"])),
            math.inf if one["cost"] is None else one["cost"],
            saving,
        )
        for one, saving in zip(facts["layers"], saved.tolist())
    ]
    return rungs, [r.layer for r, one in zip(rungs, facts["layers"]) if one["kept"]]


def _told(rungs: Sequence[Rung], choice: Choice) -> str:
    names = ", ".join(layer.name for layer in choice.kept) or "none"
    reached = ", ".join(f"{name} {value:.6g}" for name, value in choice.found.items())
    return f"{len(choice.kept)} of {len(rungs)} layers stay in float: {names}; {reached}"


def _cannot(rungs: Sequence[Rung], choice: Choice, weigh: Weigh) -> str:
    return (
        f"the budget cannot be met: with {len(choice.kept)} of {len(rungs)} layers in float, "
        f"{' and '.join(choice.missed)}. This is the best point that was reached. "
        f"What each layer costs and saves:\n{ladder_text(rungs, weigh, choice.kept)}"
    )
