"""``strop debug bisect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import Source, capture_source, dim
from strop.compiler.util.errors import StropError, UsageError

if TYPE_CHECKING:
    from strop.compiler.debug.bisect import Culprit, NoPassToBlameError
    from strop.compiler.driver.departure import Departure
    from strop.compiler.ir.running import Inputs
    from strop.compiler.targets.target import Target


def bisect(
    source: Source,
    recipe: options.RecipeName = "cpu-fp32",
    check: Annotated[
        str, typer.Option(help="A command that exits with 0 where {}, an ONNX file, is good.")
    ] = "",
    metric: Annotated[
        str,
        typer.Option(help="cosine, sqnr_db, agreement, max_abs; tokens, first_token, perplexity."),
    ] = "",
    least: Annotated[float | None, typer.Option("--min", help="Lowest value that is good.")] = None,
    most: Annotated[float | None, typer.Option("--max", help="Highest value that is good.")] = None,
    passes: options.Passes = [],  # noqa: B006  (typer copies it)
    before: options.Before = "",
    after: options.After = "",
    settings: options.Settings = [],  # noqa: B006
    program: options.Program = "",
) -> None:
    """Find the first bad pass, in it the first bad rewrite, and the value that it moved.

    Where no pass is to blame, the lowering is looked at in the same way.
    """
    from strop.compiler.debug import bisect as search
    from strop.compiler.recipes.loading import asked_recipe
    from strop.compiler.targets.target import get_target

    chosen = asked_recipe(recipe, settings, passes, before, after)
    asked = _asked(source, check, metric, least, most)
    captured, pipeline = capture_source(source, chosen, program)
    probe = captured.probe.inputs
    judge = asked(captured, chosen)
    try:
        found = search.bisect(captured.program, pipeline, judge, probe, dim)
    except search.NoPassToBlameError as refusal:
        _print_departure(refusal, _departure_of_file(refusal, probe, get_target(chosen.target)))
    else:
        _print_culprit(found)


def _departure_of_file(refusal: NoPassToBlameError, probe: Inputs, target: Target) -> Departure:
    """Where the lowered file departs from the program that no pass made wrong.

    Raises:
        NoPassToBlameError: nowhere, or the program cannot be lowered; the message says which.
    """
    from strop.compiler.driver.departure import departure

    try:
        found = departure(refusal.program, probe, target)
    except StropError as problem:
        refusal.add_note(f"the lowering could not be compared: {problem}")
        raise refusal from problem
    if found is None:
        refusal.add_note("nor is the lowering to blame: the file computes what the program does")
        raise refusal
    return found


def _asked(source: str, check: str, metric: str, least: float | None, most: float | None) -> Any:
    """The check that the options describe, to be made once there is a captured model.

    Raises:
        UsageError: they describe none, or two.
    """
    from strop.compiler.debug.checks import METRICS, Command, Metric
    from strop.compiler.debug.texts import TEXT_METRICS, TextMetric, texts_of
    from strop.compiler.targets.target import get_target
    from strop.compiler.util.errors import did_you_mean

    if bool(check) == bool(metric):
        raise UsageError("say what is good: either --check 'COMMAND {}' or --metric NAME --min N")
    if check:
        return lambda captured, recipe: Command(check, get_target(recipe.target))
    known = METRICS | TEXT_METRICS
    if metric not in known:
        raise UsageError(f"unknown metric '{metric}'{did_you_mean(metric, list(known))}")
    bound, option = (least, "--min") if known[metric] else (most, "--max")
    if bound is None or (least is not None and most is not None):
        raise UsageError(f"--metric {metric} takes {option}, and that alone")
    if metric in TEXT_METRICS:
        return lambda captured, recipe: TextMetric(texts_of(source), metric, bound)
    return lambda captured, recipe: Metric(captured.cases, metric, bound)


def _print_culprit(found: Culprit) -> None:
    checks = ", ".join(f"{n} for the {level}" for level, n in found.checks.items())
    out_console.say(f"pass '{found.step.name}' is the first bad one ({checks}): {found.reason}")
    if found.number is None:
        out_console.say("no single rewrite is to blame: the pass changes more than it counts")
    else:
        out_console.say(f"rewrite {found.number} of {found.count}: {found.place}")
    if found.change:
        out_console.say(found.change)
    if found.moved:
        out_console.say(f"first value that moved: {found.moved}")


def _print_departure(refusal: Exception, found: Departure) -> None:
    out_console.say(f"{refusal}, but {found.suspect}")
    out_console.say(f"first value that moved: {found.moved}")
    if found.emitted:
        out_console.say(f"the file computes it by\n{found.emitted}")
