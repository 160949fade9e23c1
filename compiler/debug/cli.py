"""``strop debug``: which pass, rewrite, node and source line. Nothing heavy is imported early."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.compiler.debug.profile_cli import profile_command
from strop.compiler.util.errors import StropError, UsageError
from strop.compiler.util.terminal import Console, Table

if TYPE_CHECKING:
    from strop.compiler.debug.bisect import Culprit
    from strop.compiler.debug.diff import Difference
    from strop.compiler.debug.why_not import Answer
    from strop.compiler.driver.departure import Departure
    from strop.compiler.frontend.prepare import Captured
    from strop.compiler.recipes.recipe import Recipe
    from strop.compiler.rewriting.passes import Pipeline

app = typer.Typer(
    help="Find the pass, the rewrite, the node and the source line behind a problem.",
    no_args_is_help=True,
)
console = Console()

Source = Annotated[str, typer.Argument(help="FILE.py:make, or hf:PATH[#task].")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A built-in recipe or a TOML file.")]
Passes = Annotated[
    list[str], typer.Option("--pass", help="name{option=value}, FILE.py:Class{...}; repeatable.")
]
Settings = Annotated[list[str], typer.Option("--set", help="ID.option=value; repeatable.")]
Before = Annotated[str, typer.Option(help="Put --pass before the step of this id.")]
After = Annotated[str, typer.Option(help="Put --pass after the step of this id.")]
Own = Annotated[str, typer.Option("--pass", help="FILE.py:Name, where the pass is not strop's.")]


@app.command()
def bisect(
    source: Source,
    recipe: RecipeName = "cpu-fp32",
    check: Annotated[
        str, typer.Option(help="A command that exits with 0 where {}, an ONNX file, is good.")
    ] = "",
    metric: Annotated[
        str, typer.Option(help="cosine, sqnr_db, agreement or max_abs, against the original.")
    ] = "",
    least: Annotated[float | None, typer.Option("--min", help="Least that is good.")] = None,
    most: Annotated[float | None, typer.Option("--max", help="Most that is good.")] = None,
    passes: Passes = [],  # noqa: B006  (typer copies it)
    before: Before = "",
    after: After = "",
    settings: Settings = [],  # noqa: B006
) -> None:
    """Find the first bad pass, in it the first bad rewrite, and the value that it moved.

    Where no pass is to blame, the lowering is looked at in the same way.
    """
    from strop.compiler.debug import bisect as search
    from strop.compiler.driver.departure import departure
    from strop.compiler.recipes.loading import asked_recipe
    from strop.compiler.targets.target import get_target

    chosen = asked_recipe(recipe, settings, passes, before, after)
    asked = _asked(check, metric, least, most)
    captured, pipeline = _captured(source, chosen)
    probe = captured.probe.inputs
    judge = asked(captured, chosen)
    try:
        found = search.bisect(captured.program, pipeline, judge, probe, _dim)
    except search.NoPassToBlameError as refusal:
        try:
            other = departure(refusal.program, probe, get_target(chosen.target))
        except StropError as problem:
            refusal.add_note(f"the lowering could not be looked at: {problem}")
            raise refusal from problem
        if other is None:
            refusal.add_note("the file computes what the program does: nor is the lowering")
            raise
        _print_departure(refusal, other)
    else:
        _print_culprit(found)


def _asked(check: str, metric: str, least: float | None, most: float | None) -> Any:
    """The check that the options describe, to be made once there is a captured model.

    Raises:
        UsageError: they describe none, or two.
    """
    from strop.compiler.debug.checks import METRICS, Command, Metric
    from strop.compiler.targets.target import get_target
    from strop.compiler.util.errors import did_you_mean

    if bool(check) == bool(metric):
        raise UsageError("say what is good: either --check 'COMMAND {}' or --metric NAME --min N")
    if check:
        return lambda captured, recipe: Command(check, get_target(recipe.target))
    if metric not in METRICS:
        raise UsageError(f"unknown metric '{metric}'{did_you_mean(metric, list(METRICS))}")
    bound, option = (least, "--min") if METRICS[metric] else (most, "--max")
    if bound is None or (least is not None and most is not None):
        raise UsageError(f"--metric {metric} takes {option}, and that alone")
    return lambda captured, recipe: Metric(captured.cases, metric, bound)


def _print_culprit(found: Culprit) -> None:
    checks = ", ".join(f"{n} for the {level}" for level, n in found.checks.items())
    _say(f"pass '{found.step.name}' is the first bad one ({checks}): {found.reason}")
    if found.number is None:
        _say("no rewrite of it alone is to blame: it changes the program without counting one")
    else:
        _say(f"rewrite {found.number} of {found.count}: {found.place}")
    if found.change:
        _say(found.change)
    if found.moved:
        _say(f"first value that moved: {found.moved}")


def _print_departure(refusal: Exception, found: Departure) -> None:
    _say(f"{refusal}, but {found.suspect}")
    _say(f"first value that moved: {found.moved}")
    if found.emitted:
        _say(f"the file computes it by\n{found.emitted}")


@app.command("why-not")
def why_not(
    name: Annotated[str, typer.Argument(metavar="PASS", help="A pass of the recipe.")],
    source: Annotated[
        str, typer.Argument(help="FILE.py:make, or hf:PATH, to run it; or an artifact, to look.")
    ],
    at: Annotated[str, typer.Option(help="FILE.py:LINE; all rules at that line.")] = "",
    recipe: RecipeName = "cpu-fp32",
    passes: Passes = [],  # noqa: B006
    before: Before = "",
    after: After = "",
    settings: Settings = [],  # noqa: B006
) -> None:
    """Say why a pass left something as it is: which condition failed, where."""
    from strop.compiler.debug.why_not import why_not as ask
    from strop.compiler.debug.why_not import why_not_in
    from strop.compiler.recipes.loading import asked_recipe

    if Path(source).is_dir():
        from strop.compiler.artifact.folder import read_artifact

        _print_answer(why_not_in(read_artifact(Path(source)), name, at or None), name, at)
        return
    chosen = asked_recipe(recipe, settings, passes, before, after)
    captured, pipeline = _captured(source, chosen)
    _print_answer(ask(captured.program, pipeline, name, at or None), name, at)


def _print_answer(answer: Answer, name: str, at: str) -> None:
    where = f" at {at}" if at else ""
    for step, rewrite in answer.earlier:
        _say(f"pass '{step}' rewrote %{rewrite.node} here before ({rewrite.rule})")
    for text in answer.present:
        _say(f"'{name}' saw {text}")
    for rule in sorted({r.rule for r in answer.rewrites}):
        count = sum(r.rule == rule for r in answer.rewrites)
        _say(f"'{rule}' rewrote {count}{where}")
    if answer.misses:
        table = Table("rule", "left as it is", "because")
        for miss in answer.misses:
            table.add_row(miss.rule, miss.root, miss.reason)
        console.print(table)
    for note in answer.notes:
        _say(f"note: {note}")
    if not answer.misses and not answer.rewrites and not answer.notes:
        looks = "; its rules look for:" if answer.looked_for else ""
        _say(f"'{name}' found nothing to rewrite{where}{looks}")
        for rule, targets in answer.looked_for.items():
            _say(f"  {rule}: {targets}")


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="An IR snapshot of --dump-ir, or an artifact.")],
    after: Annotated[Path, typer.Argument(help="Another one, or the artifact made from it.")],
    node: Annotated[str, typer.Option(help="%name: that value, its inputs and users only.")] = "",
    source: Annotated[str, typer.Option(help="For inputs of artifacts: FILE.py:make.")] = "",
    count: Annotated[int, typer.Option(min=1, help="How many values to show.")] = 20,
) -> None:
    """Compare snapshots, artifacts, or one with the other: text, and shared values, worst first."""
    from strop.compiler.debug import diff as compare
    from strop.compiler.debug.diff import diff_snapshots, history, snapshot_of

    if node and after.is_dir():
        raise UsageError("--node is for snapshots: artifacts hold the lowered graph only")
    if before.is_dir():
        _print_difference(compare.diff_artifacts(before, after, source), count)
        return
    if after.is_dir():
        _print_difference(compare.diff_lowered(snapshot_of(before), after), count)
        return
    first, second = snapshot_of(before), snapshot_of(after)
    found = diff_snapshots(first, second)
    if node:
        from strop.compiler.debug.apart import load_apart

        _say(history(load_apart(first), load_apart(second), node))
        found = found.only(node)
    _print_difference(found, count)


def _print_difference(found: Difference, count: int) -> None:
    _say(found.text or "the texts are equal")
    table = Table("value", "max abs", "SQNR dB", "cosine", "same argmax")
    for shared in found.shared[:count]:
        apart = shared.drift
        if apart is None:
            table.add_row(shared.text, "another shape", "", "", "")
            continue
        same = "equal" if apart.agreement == 1 else "-"
        sqnr = same if apart.sqnr_db is None else f"{apart.sqnr_db:.1f}"
        cosine = "-" if apart.cosine is None else f"{apart.cosine:.6f}"
        numbers = (f"{apart.max_abs:.3g}", sqnr, cosine, f"{apart.agreement:.3f}")
        table.add_row(shared.text, *numbers)
    console.print(table)
    _say(
        f"{len(found.shared)} values are in both, {len(found.only_before)} in the first only, "
        f"{len(found.only_after)} in the second only"
    )


app.command("profile")(profile_command)


@app.command()
def replay(bundle: Annotated[Path, typer.Argument(help="A crash bundle.")], own: Own = "") -> None:
    """Run the pass of a crash bundle on its program, to see it fail again."""
    from strop.compiler.debug.apart import fails_apart, load_apart
    from strop.compiler.driver.bundle import read_bundle

    read = read_bundle(bundle)
    run, program = read.run_pass(own or None), load_apart(read.program)
    if os.environ.get("STROP_TRACEBACK"):
        run.run(program)
    failure = fails_apart(run, program)
    if failure is None:
        raise UsageError(f"pass '{read.step}' does not fail on {bundle} any more")
    same = "as recorded" if failure.same_as(read.failure) else f"not as recorded: {read.failure}"
    _say(f"pass '{read.step}' fails {same}: {failure.kind}: {failure.message} ({failure.place})")


@app.command()
def reduce(
    bundle: Annotated[Path, typer.Argument(help="A crash bundle.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", resolve_path=True, help="BUNDLE.reduced if left out."),
    ] = None,
    own: Own = "",
) -> None:
    """Shrink the program of a crash bundle while the pass still fails in the same way."""
    from strop.compiler.debug import reduce as reducer
    from strop.compiler.driver.bundle import read_bundle, require_bundle_place

    bundle = bundle.resolve()
    read = read_bundle(bundle)
    place = out or bundle.with_name(f"{bundle.name}.reduced")
    require_bundle_place(place)
    program = reducer.reduce(read, read.run_pass(own or None), place, _dim)
    _say(str(program))
    _say(f"{sum(1 for _ in program.calls())} calls are left, in {place}")


def _captured(source: str, recipe: Recipe) -> tuple[Captured, Pipeline]:
    """The captured model, and the passes of a recipe with their contexts."""
    with _status("capturing"):
        from strop.compiler.driver.driver import ready_pipeline
        from strop.compiler.frontend.prepare import capture_model
        from strop.compiler.frontend.source import load_model
        from strop.compiler.util.stages import Stages

        model = load_model(source)
        pipeline = ready_pipeline(model, recipe)
        captured = capture_model(model, Stages())
        return captured, pipeline.taught_by(captured.program)


@contextmanager
def _status(what: str) -> Iterator[None]:
    with Console(file=sys.stderr).status(what):
        yield


def _dim(text: str) -> None:
    console.say(text, "dim")


def _say(text: str) -> None:
    console.say(text)
