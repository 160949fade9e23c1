"""A pass that quantizes, with what it learned, for any choice of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.control.layers import Layer, quantized_layers


def takes_layers(kind: type[Pass]) -> bool:
    """Whether passes of a class quantize layers that one names: by ``only`` and ``keep``."""
    options = {field.name for field in dataclasses.fields(kind)}
    return kind.quantizes and {"only", "keep"} <= options


@dataclass(frozen=True)
class Scheme:
    """A pass that quantizes, ready to rewrite.

    A pass that learns does so once, for all layers: what it learned is applied to some of them.

    Attributes:
        run: the pass; ``takes_layers`` holds for it.
        learned: what it learned; None of a pass that does not learn.
        context: what it sees beside the program.
    """

    run: Pass
    learned: Learned | None
    context: Context

    @staticmethod
    def of(run: Pass, program: Program, context: Context) -> Scheme:
        """Let a pass learn what it needs for this program."""
        learned = run.learn(program, context) if isinstance(run, LearningPass) else None
        return Scheme(run, learned, context)

    def layers(self, program: Program) -> list[Layer]:
        """The layers that it quantizes in a program.

        Raises:
            UsageError: there is none.
        """
        found = quantized_layers(program, self._new(program))
        if not found:
            raise UsageError(f"pass '{self.run.name}' finds no layer to quantize in the program")
        return found

    def alone(self, program: Program, layers: Iterable[Layer]) -> Program:
        """The program with these layers quantized, and no others."""
        return self._new(program, only=_patterns(layers))

    def keeping(self, program: Program, layers: Iterable[Layer]) -> Program:
        """The program with all layers quantized but these."""
        return self._new(program, keep=self._kept(layers))

    def rewrite(self, program: Program, log: Log, kept: Iterable[Layer] = ()) -> None:
        """Quantize in place all layers but these."""
        self._apply({"keep": self._kept(kept)}, program, log)

    def _new(self, program: Program, **options: tuple[str, ...]) -> Program:
        new = program.clone()
        self._apply(options, new, Log())
        new.drop_unused_weights()
        return new

    def _apply(self, options: Mapping[str, Any], program: Program, log: Log) -> None:
        run = replace(self.run, **options)
        if isinstance(run, LearningPass):
            assert self.learned is not None
            run.apply_learned_in(program, log, self.learned, self.context)
        else:
            run.apply_in(program, log, self.context)

    def _kept(self, layers: Iterable[Layer]) -> tuple[str, ...]:
        return (*self.run.options()["keep"], *_patterns(layers))


def _patterns(layers: Iterable[Layer]) -> tuple[str, ...]:
    return tuple(escape(name) for layer in layers for name in layer.weights)
