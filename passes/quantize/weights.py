"""Weight-only quantization: weights of 2 to 8 bits in groups, activations in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.compiler.ir.constants import weight_names
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
from strop.passes.quantize.wide import worth_more

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
        wide: the share of the weights, 0 to 1, that may have 8 bits: those whose rounding moves the
            scores most, as the gradients on calibration data say.
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
    wide: float = 0.0
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
        if not 0 <= self.wide <= 1:
            raise UsageError(f"wide is {self.wide:g}; it is a share, from 0 to 1")
        for name in ("batches", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.damping > 0:
            raise UsageError(f"damping is {self.damping}; it must be above 0")

    def required(self) -> Needs:
        return (("calibration", "train"),) if self.method in WITH_DATA else ()

    def reads(self) -> Sequence[Need]:
        """Data, also where it can do without."""
        by_data = self.wide or self.method in (*WITH_DATA, "auto")
        return ("calibration", "train") if by_data else ()

    def refused_by(self, target: Target) -> str | None:
        schemes = [Scheme(b, self.group, self.symmetric) for b in (self.bits, self.embeddings) if b]
        if self.wide:
            schemes.append(schemes[0].wide())
        return next(filter(None, (scheme.refused_by(target) for scheme in schemes)), None)

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        """Choose the grids, unless they follow from the weights, and rewrite the layers."""
        self.selection.require_matches(program)
        if self._follows_weights and not self.wide:
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
        wide = frozenset(learned.facts.get("wide", ()))
        rules: list[Rule] = [*self._rules(context.target, grids, wide)]
        if self.embeddings:
            rules.append(Int8Table(self.selection).on(context.target))
        apply_rules(program, rules, log)
        log.notes.extend(stored_apart(program))

    @property
    def _follows_weights(self) -> bool:
        """Whether grids are computed from the weights, also while these are trained."""
        return self.method == "nearest" and not self.learnable

    def learn(self, program: Program, context: Context) -> Learned:
        """Choose scales, zero points and whole numbers of every weight."""
        method = self._method(context)
        wide, notes = self._wide(program, context)
        found = places(program, self._rules(context.target, Grids(), wide))
        if method in WITH_DATA:
            with_moments(found, program, context, self.batches)
        note = few_rows(found, method)
        folded = scaled_channels(found, program) if method == "awq" else {}
        settings = Settings(self.damping, self.act_order, self.steps)
        kept = [] if self._follows_weights else found
        tensors = chosen(kept, program, method, settings, context)
        return Learned(
            tensors | {f"{_FOLDED}{name}": tensor for name, tensor in folded.items()},
            {"method": method, "weights": len(found)} | ({"wide": sorted(wide)} if wide else {}),
            (*notes, note) if note else notes,
        )

    def _wide(self, program: Program, context: Context) -> tuple[frozenset[str], tuple[str, ...]]:
        """The names of weights in 8 bits, and what the user should know of them."""
        if not self.wide:
            return frozenset(), ()
        if context.lacks(("calibration", "train")):
            return frozenset(), (
                "no weight has 8 bits (wide): the model gives no calibration data, by which they "
                "are chosen; give Model(calibration=...)",
            )
        found = places(program, self._rules(context.target, Grids()))
        taken = worth_more(found, program, self.wide, context, self.batches)
        names = [name for place in taken for name in weight_names(place.weight)]
        said = f"{len(taken)} of {len(found)} weights have 8 bits: {', '.join(names)}"
        return frozenset(names), (said,)

    def _method(self, context: Context) -> MethodName:
        if self.method != "auto":
            return self.method
        return "mse" if context.lacks(("calibration", "train")) else "gptq"

    def _rules(
        self, target: Target, grids: Grids, wide: frozenset[str] = frozenset()
    ) -> list[WeightRule]:
        kinds: list[tuple[type[WeightRule], int]] = [(NbitsLinear, self.bits)]
        if self.embeddings:
            kinds.append((NbitsEmbedding, self.embeddings))
        return [
            kind(Scheme(bits, self.group, self.symmetric), self.selection, grids, wide).on(target)
            for kind, bits in kinds
        ]
