"""The fewest layers that have to stay in float so that a program keeps within its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.passes.quantize.control.budget import Found, Judge
from strop.passes.quantize.control.ladder import Rung
from strop.passes.quantize.control.layers import Layer
from strop.passes.quantize.control.scheme import Scheme


@dataclass(frozen=True)
class Choice:
    """Layers that stay in float, and what was measured of the program then."""

    kept: tuple[Layer, ...]
    found: Found
    missed: Sequence[str]


@dataclass
class Chooser:
    """Tries programs in which some layers stay in float; each of them once.

    Attributes:
        program: in float.
        scheme: that quantizes.
        judge: measures the programs.
        most: how many layers may stay in float.
        context: told what is tried.
    """

    program: Program
    scheme: Scheme
    judge: Judge
    most: int
    context: Context
    known: dict[tuple[Layer, ...], Choice] = field(default_factory=dict)

    def choose(self, rungs: Sequence[Rung]) -> Choice:
        """The layers to keep; the program with the most layers kept where that misses the budget.

        The start of the ladder that is long enough is found by halving. Of that, every layer that
        can be quantized after all is given up, those that save most first.
        """
        layers = [rung.layer for rung in rungs]
        best = self._kept(layers[: self.most])
        if best.missed:
            return best
        low, high = -1, self.most
        while high - low > 1:
            middle = (low + high) // 2
            tried = self._kept(layers[:middle])
            if tried.missed:
                low = middle
            else:
                high, best = middle, tried
        for rung in sorted(rungs[:high], key=lambda rung: -rung.saving):
            without = self._kept([layer for layer in best.kept if layer != rung.layer])
            best = best if without.missed else without
        return best

    def _kept(self, layers: Sequence[Layer]) -> Choice:
        kept = tuple(layers)
        if kept not in self.known:
            found = self.judge.measured(self.scheme.keeping(self.program, kept))
            self.known[kept] = Choice(kept, found, self.judge.missed(found))
            told = ", ".join(f"{name} {value:.6g}" for name, value in found.items())
            self.context.progress(f"{len(kept)} layers in float: {told}")
        return self.known[kept]
