"""Find the first bad pass, in it the first bad rewrite, and the value that it moved.

Every rewrite leaves a valid program, so a pass can be stopped after any of them: both searches
are binary. A pass that raises, or breaks a rule of the IR, is bad without asking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from strop.compiler.debug.checks import Check, Verdict, first_line
from strop.compiler.debug.diff import text_diff
from strop.compiler.driver.bundle import Failure
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.values import first_moved, values
from strop.compiler.rewriting.passes import Pipeline, Step
from strop.compiler.rewriting.rules import Log, Rewrite
from strop.compiler.util.errors import UsageError, VerifyError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """What a pass made of a program, or how it failed.

    Attributes:
        program: the result; None where it failed.
        again: the result of running the pass once more on the same program.
        failure: what it raised, and where in the pass.
        log: what it counted.
        raised: whether it raised on its way to another rewrite, not after the last.
    """

    program: Program | None
    again: Program | None
    failure: str | None
    log: Log
    raised: bool = False


class NoPassToBlameError(UsageError):
    """The check fails before any pass, or holds after all of them.

    Attributes:
        program: the one that was asked about.
    """

    def __init__(self, message: str, program: Program) -> None:
        super().__init__(message)
        self.program = program


@dataclass(frozen=True)
class Culprit:
    """What a bisection found.

    Attributes:
        step: the first bad pass.
        reason: why the program is bad after it.
        number: which of its rewrites is the first bad one, from 1; None if none alone is.
        count: how many rewrites it makes.
        rewrite: that rewrite; None where the pass raised before it was complete.
        place: where in the pass that is, in words.
        change: the program's text before and after the rewrite, as a diff.
        moved: the first value that both programs have and that differs, in words.
        checks: how many checks each level took.
    """

    step: Step
    reason: str
    number: int | None
    count: int
    rewrite: Rewrite | None
    place: str
    change: str
    moved: str | None
    checks: dict[str, int]


@dataclass
class _Asker:
    """Asks the check, counts, and tells of every answer."""

    check: Check
    say: Say
    counts: dict[str, int] = field(default_factory=dict)

    def ask(self, made: Made, level: str, what: str, repeats: int = 1) -> Verdict:
        """Check the result of a pass; a pass that raised is bad without a check."""
        if made.program is None or made.again is None:
            return Verdict(False, made.failure or "")
        answers = []
        for _ in range(repeats):
            answers.append(self.check.ask(made.program, made.again))
            self.counts[level] = self.counts.get(level, 0) + 1
        if len({a.good for a in answers}) > 1:
            raise UsageError(
                f"the check is flaky: on {what} it says both good and bad "
                f"({' / '.join(a.reason for a in answers)}). Make it repeatable first."
            )
        self.say(f"{what}: {'good' if answers[0].good else 'bad'} ({answers[0].reason})")
        return answers[0]

    def confirm(self, made: Made, good: bool, step: str) -> None:
        """Ask once more about what a search has ended on.

        Raises:
            UsageError: the answer is another one.
        """
        if self.ask(made, "rewrites", "once more").good != good:
            raise UsageError(
                f"the check is flaky: at one rewrite of '{step}' it said "
                f"{'good' if good else 'bad'}, and then the opposite. Make it repeatable first."
            )


def bisect(
    captured: Program, pipeline: Pipeline, check: Check, inputs: Inputs, say: Say = lambda _: None
) -> Culprit:
    """Find the pass that made a program bad.

    Args:
        captured: the program before any pass.
        pipeline: the passes.
        check: what good means.
        inputs: one set of inputs, to find the value that moved.
        say: told of every check and its answer.

    Raises:
        NoPassToBlameError: the check fails before any pass, or holds after all of them.
        UsageError: it is flaky.
    """
    asker = _Asker(check, say)
    first = Made(captured, captured, None, Log())
    original = asker.ask(first, "passes", "the captured model", check.repeats)
    if not original.good:
        raise NoPassToBlameError(
            f"the check fails on the captured model, before any pass ({original.reason}): "
            "there is no pass to blame",
            captured,
        )
    steps, states = _run_all(captured, pipeline)
    last = asker.ask(states[-1], "passes", f"after '{steps[-1].name}'", check.repeats)
    if last.good:
        assert states[-1].program is not None
        raise NoPassToBlameError(
            f"the check holds after the last pass ({last.reason}): there is no pass to blame",
            states[-1].program,
        )
    reasons = {len(states): last.reason}  # why, by how many passes have run

    def bad(count: int) -> bool:
        answer = asker.ask(states[count - 1], "passes", f"after '{steps[count - 1].name}'")
        reasons[count] = answer.reason
        return not answer.good

    found = first_bad(0, len(states), bad)
    before = captured if found == 1 else states[found - 2].program
    assert before is not None
    return _in_pass(before, steps[found - 1], states[found - 1], reasons[found], asker, inputs)


def first_bad(good: int, bad: int, is_bad: Callable[[int], bool]) -> int:
    """The smallest bad number above ``good``; asks ceil(log2(bad - good)) times."""
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(middle):
            bad = middle
        else:
            good = middle
    return bad


def _run_all(captured: Program, pipeline: Pipeline) -> tuple[list[Step], list[Made]]:
    """Run the pipeline as far as it goes; the steps that did something, and what they made.

    Raises:
        NoPassToBlameError: none did.
    """
    steps: list[Step] = []
    states: list[Made] = []
    program = captured
    for step in pipeline.steps:
        made = make(step, program)
        if made.program is not None and not made.log.rewrites:
            continue
        steps.append(step)
        states.append(made)
        if made.program is None:
            break
        program = made.program
    if not states:
        raise NoPassToBlameError("no pass changes this model: there is no pass to blame", captured)
    return steps, states


def make(step: Step, program: Program, limit: int | None = None) -> Made:
    """Run a pass twice, up to a number of rewrites, and keep what it raises."""
    log, second = Log(limit=limit), Log(limit=limit)
    try:
        run = step.run.run
        made = run(program, log, step.context).program
        return Made(made, run(program, second, step.context).program, None, log)
    except Exception as error:  # whatever a pass raises: that is what is looked for
        failure = Failure.of(error)
        message = failure.message.strip().splitlines() or [""]
        said = f"{failure.kind}: {message[0]} ({failure.place})"
        if len(message) > 1:
            said = f"{said}\n  " + "\n  ".join(line.strip() for line in message[1:])
        return Made(None, None, f"it raises {said}", log, not isinstance(error, VerifyError))


def _in_pass(
    before: Program, step: Step, whole: Made, reason: str, asker: _Asker, inputs: Inputs
) -> Culprit:
    """Find the first bad rewrite of a pass that makes a good program bad."""
    # A pass that raised was at its next rewrite; one that broke a rule of the IR had done them all.
    count = len(whole.log.rewrites) + whole.raised
    made, reasons = {count: whole}, {count: reason}

    def bad(number: int) -> bool:
        made[number] = make(step, before, number)
        answer = asker.ask(made[number], "rewrites", f"'{step.name}', {number} of {count} rewrites")
        reasons[number] = answer.reason
        return not answer.good

    number = first_bad(0, count, bad)
    guilty, last_good = made[number], make(step, before, max(number - 1, 0))
    if asker.check.repeats > 1:
        asker.confirm(guilty, False, step.name)
        asker.confirm(last_good, True, step.name)
    good = last_good.program
    assert good is not None
    done = guilty.log.rewrites
    return Culprit(
        step=step,
        reason=reasons[number],
        number=number or None,
        count=count,
        rewrite=done[number - 1] if len(done) >= number > 0 else None,
        place=_place(guilty),
        change=_change(good, guilty.program),
        moved=_moved(good, guilty.program, inputs),
        checks=dict(asker.counts),
    )


def _place(made: Made) -> str:
    """Where a pass was; where it does not say and raised, what it had done last."""
    known = made.log.looking_at is not None or not made.raised or not made.log.rewrites
    return made.log.place() if known else f"after {made.log.place()}"


def _change(before: Program, after: Program | None) -> str:
    return "" if after is None else text_diff(str(before), str(after))


def _moved(before: Program, after: Program | None, inputs: Inputs) -> str | None:
    """The first value, in the order of the later program, that differs between the two."""
    if after is None:
        return None
    try:
        old, new = values(before, inputs), values(after, inputs)
    except Exception as error:  # a wrong graph may not run: said, and the rest is still of use
        return f"the program does not run: {first_line(error)}"
    moved = first_moved(after, old, new, NOISE_DB)
    return moved.text if moved else None


# Rounding in another order of operations stays above this ratio of signal to noise, in float32.
NOISE_DB = 80.0
