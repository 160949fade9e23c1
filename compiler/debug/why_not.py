"""Why a pass left something as it is: the near misses of its rules, and what happened before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.compiler.artifact.folder import Artifact
from strop.compiler.ir.printer import describe, op_name, source_line
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import PassResult, Pipeline, RulePass, Step, run_step
from strop.compiler.rewriting.pattern import NEAR
from strop.compiler.rewriting.rules import Log, NearMiss, Rewrite
from strop.compiler.util.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Answer:
    """What a pass did and did not do, at one source line or everywhere.

    Attributes:
        misses: roots left as they are, with the condition that failed.
        rewrites: what the pass did rewrite.
        earlier: rewrites at the line by the passes before it, by pass.
        present: the values of the line that the pass saw, in words; empty without a line.
        looked_for: the operators at which the pass's rules look, by rule.
        notes: what the pass says of itself.
    """

    misses: tuple[NearMiss, ...]
    rewrites: tuple[Rewrite, ...]
    earlier: tuple[tuple[str, Rewrite], ...]
    present: tuple[str, ...]
    looked_for: dict[str, str]
    notes: tuple[str, ...]


def why_not(captured: Program, pipeline: Pipeline, name: str, at: str | None = None) -> Answer:
    """Run the passes up to one, and ask that one why.

    Args:
        captured: the program before any pass.
        pipeline: the passes.
        name: the step to ask.
        at: ``file.py:31``; then every root at that line is reported, not only near misses.

    Raises:
        UsageError: there is no such step, or no value at that line.
    """
    names = [s.name for s in pipeline.steps]
    if name not in names:
        raise UsageError(f"the recipe has no pass '{name}'{did_you_mean(name, names)}")
    place = names.index(name)
    program, earlier = captured, []
    for step in pipeline.steps[:place]:
        result = run_step(step, program)
        earlier += [(step.name, r) for r in result.log.rewrites]
        program = result.program
    step = pipeline.steps[place]
    result = run_step(step, program, Log(least_depth=0 if at else NEAR))
    if at is None:
        return _answer(step, result, result.log.misses, result.log.rewrites, [], [])
    _require_line(captured, at)
    return _answer(
        step,
        result,
        [m for m in result.log.misses if _is_at(at, m.lines)],
        [r for r in result.log.rewrites if _is_at(at, (r.source,))],
        [(s, r) for s, r in earlier if _is_at(at, (r.source,))],
        [describe(n) for n in program.calls() if _is_at(at, (source_line(n),))],
    )


def why_not_in(artifact: Artifact, name: str, at: str | None = None, program: str = "") -> Answer:
    """What the manifest of an artifact says of one pass: near misses and counts.

    Raises:
        UsageError: there is no such step, or which of several programs is meant is not said.
    """
    steps = {p["name"]: p for p in artifact.program(program)["passes"]}
    if name not in steps:
        raise UsageError(f"the artifact has no pass '{name}'{did_you_mean(name, list(steps))}")
    step = steps[name]
    misses = [NearMiss(**{**m, "lines": tuple(m["lines"])}) for m in step["misses"]]
    counts = [f"{count} {rule}" for rule, count in step["rewrites"].items()]
    return Answer(
        misses=tuple(m for m in misses if at is None or _is_at(at, m.lines)),
        rewrites=(),
        earlier=(),
        present=(),
        looked_for={},
        notes=(*step["notes"], f"it rewrote: {', '.join(counts) or 'nothing'}"),
    )


def _answer(
    step: Step,
    result: PassResult,
    misses: Sequence[NearMiss],
    rewrites: Sequence[Rewrite],
    earlier: Sequence[tuple[str, Rewrite]],
    present: Sequence[str],
) -> Answer:
    rules = step.run.rules() if isinstance(step.run, RulePass) else ()
    looked_for = {r.name: ", ".join(op_name(t) for t in r.targets()) for r in rules}
    return Answer(
        tuple(misses), tuple(rewrites), tuple(earlier), tuple(present), looked_for,
        tuple(result.log.notes),
    )  # fmt: skip


def _is_at(at: str, lines: Sequence[str | None]) -> bool:
    """Whether one of the lines is the one asked for; its folder does not count."""
    return at.replace("\\", "/").rpartition("/")[2] in lines


def _require_line(captured: Program, at: str) -> None:
    known = list(dict.fromkeys(filter(None, map(source_line, captured.calls()))))
    if not _is_at(at, known):
        raise UsageError(f"nothing was captured from '{at}'{did_you_mean(at, known)}")
