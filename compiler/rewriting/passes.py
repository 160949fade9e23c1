"""Passes and pipelines. The base class checks what a pass declares."""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from strop.compiler.ir.printer import program_text
from strop.compiler.ir.program import Program
from strop.compiler.ir.verifier import verify, verify_unchanged, versions_of
from strop.compiler.rewriting.context import Capture, Context, Needs
from strop.compiler.rewriting.rules import Enough, Log, Rule, apply_rules
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import StropError, UsageError, VerifyError
from strop.compiler.util.user_code import blame


@dataclass(frozen=True)
class PassResult:
    """A new program, with the rewrites that were made and the near misses."""

    program: Program
    log: Log
    modified: bool


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite of a whole program; a subclass is a frozen dataclass and its fields are options.

    ``run`` never touches the program it is given, nor its weights. The result is verified, and
    ``modified`` is read off the text and the weights, not taken from the pass's word.

    Attributes:
        name: how recipes call it.
        after: names of passes that must have run before this one.
        before: names of passes that may run only after this one, where a recipe has them.
        needs: what of the context it cannot do without, whatever its options are.
        quantizes: it gives up precision for speed or size; a build compares the time with that of
            the program without it.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    before: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[Needs] = ()
    quantizes: ClassVar[bool] = False

    def required(self) -> Needs:
        """What it cannot do without, with these options."""
        return self.needs

    def refused_by(self, target: Target) -> str | None:
        """Why a target does not run what the pass makes, whatever the model is; None if it does."""
        return None

    def uses(self) -> Sequence[Any]:
        """Functions and classes of the user's that its options name.

        Raises:
            UsageError: one is not there.
        """
        return ()

    @abstractmethod
    def apply(self, program: Program, log: Log) -> None:
        """Rewrite ``program`` in place and record what was done in ``log``."""

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        """The same for a pass that reads its context; other passes do not override this."""
        self.apply(program, log)

    def run(
        self, program: Program, log: Log | None = None, context: Context | None = None
    ) -> PassResult:
        """Apply this pass to a copy of the program.

        Args:
            program: left as it is.
            log: what to count in, and how many rewrites to let happen; a new one by default.
            context: what the pass sees beside the program; by default the CPU, and no data.

        Raises:
            VerifyError: the pass broke a rule of the IR, wrote to a weight in place, or the
                rewrites that it counted do not agree with what it did.
            UsageError: the context lacks what the pass needs.
        """
        log = Log() if log is None else log
        context = Context() if context is None else context
        require_needs(self, context)
        new, versions = program.clone(), versions_of(program)
        if log.limit != 0:
            with suppress(Enough):
                self.apply_in(new, log, context)
        verify_unchanged(program, versions)
        new.drop_unused_weights()
        verify(new)
        if any(spec.tap for spec in new.contract.outputs):
            raise VerifyError("it leaves taps among the outputs")
        modified = program_text(new) != program_text(program) or new.has_other_values(program)
        if modified != bool(log.rewrites):
            said = f"{len(log.rewrites)} rewrites"
            did = "changed" if modified else "did not change"
            raise VerifyError(f"it reports {said} but {did} the program")
        return PassResult(new, log, modified)

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def require_needs(one: Pass, context: Context) -> None:
    """Check that a context has what a pass needs, and that what its options name is there.

    Raises:
        UsageError: something is missing, or the target does not run what the pass makes.
    """
    one.uses()
    require_target(one, context.target)
    missing = [need for need in one.required() if context.lacks(need)]
    if missing:
        names = [need if isinstance(need, str) else " or ".join(need) for need in missing]
        given = [need if isinstance(need, str) else need[0] for need in missing]
        raise UsageError(
            f"pass '{one.name}' needs {' and '.join(names)}: give "
            f"Model({', '.join(f'{need}=...' for need in given)}) in the factory"
        )


def require_target(one: Pass, target: Target) -> None:
    """Check that a target runs what a pass makes.

    Raises:
        UsageError: it does not.
    """
    if reason := one.refused_by(target):
        raise UsageError(f"pass '{one.name}': {reason}")


@dataclass(frozen=True)
class RulePass(Pass):
    """A pass that is a list of rules, tried in order."""

    @abstractmethod
    def rules(self) -> Sequence[Rule]:
        """The rules, in the order in which they are tried."""

    def apply(self, program: Program, log: Log) -> None:
        apply_rules(program, self.rules(), log)

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        apply_rules(program, [rule.on(context.target) for rule in self.rules()], log)


class Instrument:
    """Called before and after every pass; both hooks do nothing unless overridden."""

    def before(self, step: Step, program: Program) -> None:
        """Called before a step."""

    def after(self, step: Step, result: PassResult) -> None:
        """Called after a step."""


@dataclass(frozen=True)
class Step:
    """A pass at its place in a pipeline; names are unique within one.

    Attributes:
        context: what the pass sees beside the program.
    """

    name: str
    run: Pass
    context: Context = field(default_factory=Context)


@dataclass(frozen=True)
class Pipeline:
    """Steps in the order in which they run."""

    steps: tuple[Step, ...]

    @staticmethod
    def of(passes: Iterable[Pass]) -> Pipeline:
        """Name each step after its pass, numbering repeats (``cse``, ``cse-2``)."""
        made = list(passes)
        return Pipeline(tuple(map(Step, numbered(one.name for one in made), made)))

    def within(self, context: Context) -> Pipeline:
        """The same steps, which see this context."""
        return Pipeline(tuple(replace(step, context=context) for step in self.steps))

    def taught_by(self, teacher: Program, capture: Capture | None = None) -> Pipeline:
        """The same steps, which see the program as captured, and can capture other teachers."""
        steps = [
            replace(s, context=replace(s.context, teacher=teacher, capture=capture))
            for s in self.steps
        ]
        return Pipeline(tuple(steps))

    def timed_by(self, clock: Callable[[Sequence[Step], Program], Any]) -> Pipeline:
        """The same steps, which can time programs.

        Args:
            clock: a ``Clock`` that takes the steps behind the one that asks first.
        """
        steps = [
            replace(s, context=replace(s.context, clock=partial(clock, self.steps[i + 1 :])))
            for i, s in enumerate(self.steps)
        ]
        return Pipeline(tuple(steps))

    def require_needs(self) -> None:
        """Check that the context of every step has what its pass needs.

        Raises:
            UsageError: something is missing, or the target does not run what a pass makes.
        """
        for step in self.steps:
            require_target(step.run, step.context.target)
        for step in self.steps:
            require_needs(step.run, step.context)

    def run(
        self, program: Program, instruments: Sequence[Instrument] = (), stop_after: str = ""
    ) -> Program:
        """Run every step, or up to and including the one named.

        Raises:
            UsageError: a user's own pass raised, or broke a rule of the IR.
            VerifyError: one of strop's did.
        """
        for step in self.steps:
            for instrument in instruments:
                instrument.before(step, program)
            result = run_step(step, program)
            for instrument in instruments:
                instrument.after(step, result)
            program = result.program
            if step.name == stop_after:
                break
        return program


def is_strops(run: Pass) -> bool:
    """Whether a pass comes with strop; errors in other passes are the user's to correct."""
    return type(run).__module__.startswith("strop.")


def run_step(step: Step, program: Program, log: Log | None = None) -> PassResult:
    """Run one step; errors are reported with its name and the party at fault.

    Raises:
        UsageError: a user's own pass raised, or broke a rule of the IR.
        VerifyError: one of strop's did.
    """
    module, users = type(step.run).__module__, not is_strops(step.run)
    try:
        return step.run.run(program, log, step.context)
    except VerifyError as error:
        kind = UsageError if users else VerifyError
        raise kind(f"pass '{step.name}' broke the program: {error}") from error
    except StropError:
        raise
    except Exception as error:
        if users:
            file = getattr(sys.modules.get(module), "__file__", None) or module
            raise UsageError(f"pass '{step.name}' raised {blame(error, file)}") from error
        error.add_note(f"while pass '{step.name}' ran")
        raise


def numbered(names: Iterable[str]) -> list[str]:
    """The names, the second of two that are equal with a number: ``cse``, ``cse-2``."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return made
