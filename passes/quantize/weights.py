"""Weight-only quantization: weights of 2 to 8 bits in groups, activations in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Need, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.rules import Log, Rule, apply_rules
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.choosing import (
    chosen,
    few_rows,
    places,
    scaled_channels,
    with_moments,
)
from strop.passes.quantize.dynamic import Int8Table
from strop.passes.quantize.grid import Grid
from strop.passes.quantize.grouped import (
    Grids,
    NbitsEmbedding,
    NbitsLinear,
    Scheme,
    WeightRule,
)
from strop.passes.quantize.methods import WITH_DATA, MethodName, Settings
from strop.passes.quantize.selection import Selecting
from strop.passes.quantize.tied import stored_apart

_GROUPS = (0, 16, 32, 64, 128, 256)
_FOLDED = "folded/"


@dataclass(frozen=True)
class QuantizeWeights(Selecting, LearningPass):
    """Store the weights of linear layers in 2 to 8 bits; activations and products stay in float.

    QAT is ``recover`` behind this pass: rounding lets gradients through. What is trained is the
    program as it was captured, in eval mode: batch norms go on with the statistics that they have,
    and nothing is dropped.

    Attributes:
        bits: of a weight, 2 to 8. On the CPU those of 3 bits take the room of 4, and 5 to 7 of 8.
        group: input channels that share a scale: 16, 32, 64, 128 or 256; 0 for all of a row.
        symmetric: without a zero point for each group.
        method: how whole numbers and scales are chosen. Without data: "nearest" covers all values,
            "mse" cuts off what makes the squared error larger, "hqq" forgives outliers. By what
            the layers are multiplied with: "gptq", "awq" and "adaround". "auto" is "gptq" where
            there is data, else "mse".
        embeddings: bits of embedding tables; 0 leaves them in float.
        only: weights to quantize, by name or shell pattern; by default all.
        keep: weights to leave in float, by name or shell pattern.
        learnable: scales can be trained by ``recover`` behind this pass. Otherwise they stay as the
            method gave them; those of "nearest" follow the weight.
        batches: of data that are looked at, at most.
        damping: of GPTQ: the share of the mean of the second moments that is added to them.
        act_order: GPTQ begins with the columns that have the largest activations.
        steps: of AdaRound, for each layer.
    """

    name = "quantize-weights"
    quantizes = True
    needs: ClassVar[Needs] = ()
    # The product adds the bias itself.
    before = ("bias-gelu",)

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    method: MethodName | Literal["auto"] = "auto"
    embeddings: int = 0
    learnable: bool = False
    batches: int = 64
    damping: float = 0.01
    act_order: bool = True
    steps: int = 300

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        Grid(self.bits)
        if self.embeddings not in (0, *range(2, 9)):
            raise UsageError(f"embeddings is {self.embeddings}; it must be 0, or from 2 to 8")
        if self.group not in _GROUPS:
            known = ", ".join(map(str, _GROUPS))
            raise UsageError(f"group is {self.group}; it must be one of {known}")
        for name in ("batches", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.damping > 0:
            raise UsageError(f"damping is {self.damping}; it must be above 0")

    def required(self) -> Needs:
        return (("calibration", "train"),) if self.method in WITH_DATA else ()

    def reads(self) -> Sequence[Need]:
        """Data, also where it can do without."""
        return ("calibration", "train") if self.method in (*WITH_DATA, "auto") else ()

    def refused_by(self, target: Target) -> str | None:
        schemes = [Scheme(b, self.group, self.symmetric) for b in (self.bits, self.embeddings) if b]
        return next(filter(None, (scheme.refused_by(target) for scheme in schemes)), None)

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        """Choose the grids, unless they follow from the weights, and rewrite the layers."""
        self.selection.require_matches(program)
        if self.method == "nearest" and not self.learnable:
            self.apply_learned_in(program, log, Learned(), context)
        else:
            super().apply_in(program, log, context)

    def apply_learned_in(
        self, program: Program, log: Log, learned: Learned, context: Context
    ) -> None:
        for name, tensor in learned.tensors.items():
            if name.startswith(_FOLDED):
                program.set_weight(name.removeprefix(_FOLDED), tensor, self.name)
                log.changed_weight("scaled-channels", name.removeprefix(_FOLDED))
        grids = Grids(learned.tensors, self.learnable)
        rules: list[Rule] = [*self._rules(context.target, grids)]
        if self.embeddings:
            rules.append(Int8Table(self.selection).on(context.target))
        apply_rules(program, rules, log)
        log.notes.extend(stored_apart(program))

    def learn(self, program: Program, context: Context) -> Learned:
        """Choose scales, zero points and whole numbers of every weight."""
        method = self._method(context)
        found = places(program, self._rules(context.target, Grids()))
        if method in WITH_DATA:
            with_moments(found, program, context, self.batches)
        note = few_rows(found, method)
        folded = scaled_channels(found, program) if method == "awq" else {}
        settings = Settings(self.damping, self.act_order, self.steps)
        tensors = chosen(found, program, method, settings, context)
        return Learned(
            tensors | {f"{_FOLDED}{name}": tensor for name, tensor in folded.items()},
            {"method": method, "weights": len(found)},
            (note,) if note else (),
        )

    def _method(self, context: Context) -> MethodName:
        if self.method != "auto":
            return self.method
        return "mse" if context.lacks(("calibration", "train")) else "gptq"

    def _rules(self, target: Target, grids: Grids) -> list[WeightRule]:
        kinds: list[tuple[type[WeightRule], int]] = [(NbitsLinear, self.bits)]
        if self.embeddings:
            kinds.append((NbitsEmbedding, self.embeddings))
        return [
            kind(Scheme(bits, self.group, self.symmetric), self.selection, grids).on(target)
            for kind, bits in kinds
        ]
