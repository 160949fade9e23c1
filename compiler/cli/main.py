"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from strop.bench.cli import app as bench_app
from strop.compiler.debug.cli import app as debug_app
from strop.compiler.frontend.source import absolute_source
from strop.compiler.util import interrupts
from strop.compiler.util.errors import StropError, UsageError, did_you_mean
from strop.compiler.util.interrupts import Interrupted
from strop.compiler.util.terminal import Console, Table, write
from strop.compiler.util.user_code import held_to_return

if TYPE_CHECKING:
    from strop.compiler.recipes.recipe import Recipe


class _Commands(TyperGroup):
    """No command ends before its end, whatever the user's code calls."""

    # The context's class is click's, which typer carries under a private name.
    def invoke(self, ctx: Any) -> Any:
        with held_to_return():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    name="strop",
    help="A compiler for trained models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(debug_app, name="debug")
app.add_typer(bench_app, name="bench")
out_console = Console()
err_console = Console(stderr=True)

RecipeName = Annotated[str, typer.Option("--recipe", help="A built-in recipe or a TOML file.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="ID.option=value or budget.key=value; repeatable.")
]


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(
            help="FILE.py:make, or hf:PATH[#task[,option=value...]]; strop tasks lists both."
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder to write.")] = None,
    recipe: RecipeName = "cpu-fp32",
    target: Annotated[str, typer.Option(help="Where it will run; the recipe's by default.")] = "",
    settings: Settings = [],  # noqa: B006  (typer copies it)
    passes: Annotated[
        list[str], typer.Option("--pass", help="name{option=value}, FILE.py:Class{...}")
    ] = [],  # noqa: B006
    before: Annotated[str, typer.Option(help="Put --pass before the step of this id.")] = "",
    after: Annotated[str, typer.Option(help="Put --pass after the step of this id.")] = "",
    stop_after: Annotated[
        str, typer.Option(help="Print the IR after the step of this id and stop.")
    ] = "",
    dump_ir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the IR after each pass.")
    ] = None,
    expect: Annotated[
        list[str], typer.Option(help="NAME=COUNT: rewrites by a pass or rule; else exit 3.")
    ] = [],  # noqa: B006
    instruments: Annotated[
        Literal["off", "cheap", "full"], typer.Option(help="What to measure after every pass.")
    ] = "cheap",
    check: Annotated[
        Literal["bounded", "full"],
        typer.Option(help="Sizes to check at: those that cost seconds, or all corners."),
    ] = "bounded",
    print_recipe: Annotated[bool, typer.Option(help="Write the recipe in force.")] = False,
    force: Annotated[
        bool, typer.Option(help="Write into a folder that is not an artifact, and keep its files.")
    ] = False,
    tune: Annotated[bool, typer.Option(help="Measure emitter choices on this machine.")] = False,
) -> None:
    """Build a model into a checked artifact."""
    # The user's code may change the working folder: paths are what they are now.
    here = Path.cwd()
    settings = [*settings, *(f"expect.{count}" for count in expect)]
    from strop.compiler.recipes.loading import asked_recipe

    chosen = asked_recipe(recipe, settings, passes, before, after, target)
    if print_recipe:
        from strop.compiler.recipes.text import recipe_text

        write(recipe_text(chosen))
        return
    if not source:
        raise UsageError("say what to build: FILE.py:make or hf:PATH")
    source = absolute_source(source)
    dump_ir = dump_ir and here / dump_ir
    chosen = chosen.in_folder(here)
    if stop_after:
        _print_program(source, chosen, stop_after, dump_ir)
    elif out is None:
        raise UsageError("say where to write: -o OUT")
    else:
        _build(source, here / out, chosen, dump_ir, force, tune, instruments, check)


def _print_program(source: str, recipe: Recipe, stop_after: str, dump_ir: Path | None) -> None:
    from strop.compiler.driver.driver import compile_program
    from strop.compiler.frontend.source import load_model

    write(str(compile_program(load_model(source), recipe, stop_after, dump_ir)))


def _build(
    source: str,
    out: Path,
    recipe: Recipe,
    dump_ir: Path | None,
    force: bool,
    tune: bool,
    instruments: Literal["off", "cheap", "full"],
    check: Literal["bounded", "full"],
) -> None:
    # Bound to the stream itself, so that it goes on while others' output is held back.
    with Console(file=sys.stderr).status(f"loading {source}") as status:
        from strop.compiler.driver import driver
        from strop.compiler.frontend.source import load_model, source_path
        from strop.compiler.lower.lowering import lowering_of
        from strop.compiler.targets.target import get_target

        driver.require_places(out, dump_ir, force, [source_path(source), *recipe.files()])
        choices = None
        if tune:
            place = get_target(recipe.target)
            choices = lowering_of(place).tuned(
                place, lambda what: status.update(f"measuring {what}")
            )
        artifact = driver.build(
            load_model(source),
            out,
            recipe,
            force=force,
            dump_ir=dump_ir,
            instruments=instruments,
            check=check,
            choices=choices,
            progress=lambda stage: status.update(stage),
            again=lambda: load_model(source),
        )
    _remember(artifact.path, source)
    _print_summary(artifact)


def _remember(out: Path, source: str) -> None:
    """Keep the source for `strop bench`; without it, --source says it there."""
    from strop.compiler.artifact.history import remember_source

    try:
        remember_source(out, source)
    except (OSError, RuntimeError, UsageError) as error:
        _say(f"the source is not remembered for strop bench: {error}")


def _checks_text(checks: list[dict[str, Any]]) -> str:
    """The worst of all checks: errors of float outputs, and mismatches of all others."""
    floats = [c for c in checks if c["cosine"] is not None]
    others = [c for c in checks if c["cosine"] is None]
    said = []
    if floats:
        worst = max(floats, key=lambda c: c["max_error"])
        said.append(f"worst error {worst['max_error']:.1e} ({worst['output']}, {worst['case']})")
        said.append(f"lowest cosine {min(c['cosine'] for c in floats):.5f}")
    if others:  # manifests of older versions have no "mismatches"
        worst = max(others, key=lambda c: c["max_error"])
        place = f"({worst['output']}, {worst['case']})"
        said.append(f"at most {worst['max_error']:.2%} of elements differ {place}")
    return f"{len(checks)} comparisons with the original: {', '.join(said)}"


def _print_summary(artifact: Any) -> None:
    from strop.compiler.artifact.report import units

    out_console.say(artifact.path)
    out_console.print(_pass_table(artifact))
    out_console.say(f"{units.size(artifact.size)}; {_checks_text(artifact.manifest['checks'])}")
    if artifact.manifest.get("sizes"):
        out_console.say(_sizes_text(artifact.manifest["sizes"]))
    for name, before in artifact.manifest["metrics"].get("original", {}).items():
        after = artifact.manifest["metrics"]["artifact"].get(name)
        out_console.print(f"{name}: {before:.6g} original, {after:.6g} artifact")
    for note in [*artifact.manifest["notes"], *artifact.build_record().get("notes", [])]:
        out_console.print(f"note: {note}")


def _sizes_text(sizes: dict[str, Any]) -> str:
    """In one line, at which sizes original and file were compared, and what was left out."""
    ran = [_one_size(one) for one in sizes["run"]]
    given, run = sizes["calibration"]["given"], sizes["calibration"]["run"]
    text = "; ".join([f"compared on {run} of {given} calibration inputs", *filter(None, ran)])
    if not sizes["left_out"]:
        return text
    left = " and ".join(_one_size(one["sizes"]) for one in sizes["left_out"])
    return f"{text}. Not run, for their cost: {left} (--check full runs all)"


def _one_size(sizes: dict[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def _pass_table(artifact: Any) -> Table:
    """One row a pass that changed something: time, growth, counts, and what it did to outputs."""
    from strop.compiler.artifact.report import units

    seconds = artifact.build_record().get("pass_seconds", {})
    idle = [r["name"] for r in artifact.manifest["passes"] if not r["rewrites"]]
    caption = (
        f"changed nothing: {', '.join(idle) or 'none'}\n"
        "SQNR in dB against the pass before, largest error against the original, on a small probe"
    )
    heads = ("pass", "ms", "nodes", "size", "SQNR", "error", "rewrites")
    table = Table(*heads, caption=caption)
    for record in artifact.manifest["passes"]:
        if not record["rewrites"]:
            continue
        table.add_row(
            record["name"],
            f"{1000 * seconds[record['name']]:.0f}" if record["name"] in seconds else "-",
            f"{record['nodes_before']} → {record['nodes_after']}",
            units.size(record["bytes_after"]),
            _sqnr_text(record["previous"]),
            _error_text(record["original"]),
            "\n".join(f"{n} {rule}" for rule, n in record["rewrites"].items()),
        )
    return table


def _sqnr_text(drift: dict[str, Any] | None) -> str:
    if drift is None:
        return ""
    if not drift["finite"]:
        return "NaN or Inf"
    if drift["sqnr_db"] is None:
        return "equal" if drift["agreement"] == 1 else "-"
    return f"{drift['sqnr_db']:.0f}"


def _error_text(drift: dict[str, Any] | None) -> str:
    if drift is None or drift["max_abs"] is None:
        return ""
    return f"{drift['max_abs']:.1e}"


@app.command()
def inspect(
    out: Annotated[Path, typer.Argument(help="An artifact folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="The manifest as JSON.")] = False,
) -> None:
    """Show what an artifact holds, and whether it still matches its hashes."""
    from strop.compiler.artifact.folder import read_artifact

    artifact = read_artifact(out)
    if as_json:
        write(json.dumps(artifact.manifest, indent=2, sort_keys=True) + "\n")
    else:
        _print_contract(artifact.manifest)
        _print_summary(artifact)
    damaged = artifact.damaged()
    if damaged:
        raise UsageError(f"{out}: {'; '.join(damaged)}")
    if not as_json:
        out_console.print("all files match their hashes")


def _print_contract(manifest: dict[str, Any]) -> None:
    table = Table("", "name", "dtype", "shape")
    for kind in ("inputs", "outputs"):
        for spec in manifest["contract"][kind]:
            shape = ", ".join(str(s) for s in spec["shape"])
            table.add_row(kind[:-1], spec["name"], spec["dtype"], shape)
    for dim in manifest["contract"]["dims"]:
        table.add_row("dim", dim["name"], "", f"{dim['min']} to {dim['max'] or 'any size'}")
    out_console.print(table)


@app.command("passes")
def list_passes(name: Annotated[str, typer.Argument(help="One pass in full.")] = "") -> None:
    """List the passes, or show the options and documentation of one."""
    import dataclasses
    from inspect import getdoc

    from strop.compiler.recipes.registry import pass_classes

    known = pass_classes()
    if name and name not in known:
        raise UsageError(f"unknown pass '{name}'{did_you_mean(name, list(known))}")
    if name:
        out_console.print(name, style="bold")
        out_console.print(getdoc(known[name]))
        for field in dataclasses.fields(known[name]):
            out_console.print(f"  {field.name} = {field.default!r}  ({field.type})")
        for word, others in (("after", known[name].after), ("before", known[name].before)):
            if others:
                out_console.print(f"  must run {word}: {', '.join(others)}")
        return
    table = Table("pass", "options", "what it does")
    for key, kind in known.items():
        options = ", ".join(f.name for f in dataclasses.fields(kind))
        table.add_row(key, options, (getdoc(kind) or "").splitlines()[0])
    out_console.print(table)


@app.command("cache")
def show_cache(
    clear: Annotated[bool, typer.Option(help="Remove everything that passes learned.")] = False,
) -> None:
    """Show what passes that learn have kept, or clear it."""
    from strop.compiler.artifact.report import units
    from strop.compiler.frontend.data import learned_cache

    cache = learned_cache()
    if clear:
        cache.clear()
    table = Table("entry", "size", "last used")
    for entry in cache.entries():
        used = datetime.fromtimestamp(entry.used).isoformat(sep=" ", timespec="minutes")
        table.add_row(entry.key, units.size(entry.bytes), used)
    out_console.print(table)
    out_console.say(f"{cache.root}, at most {units.size(cache.most_bytes)}")


@app.command("tasks")
def list_tasks() -> None:
    """List what a local Hugging Face folder can be built for, as in hf:PATH#task."""
    from strop.compiler.frontend.huggingface import OPTIONS, TASKS

    table = Table("task", "what the artifact gives")
    for task in TASKS.values():
        table.add_row(task.name, task.summary)
    table.caption = "\n".join(
        ["Without a task: the class that config.json names. After the task, with commas:"]
        + [f"{name}={what}" for name, what in OPTIONS.items()]
    )
    table.caption_justify = "left"
    out_console.print(table)


def main() -> None:
    """Entry point: errors and signals become sentences and exit codes."""
    interrupts.listen()
    code = _run()
    interrupts.stop_listening()
    if interrupts.received() is not None:
        interrupts.leave()
    sys.exit(code)


def _run() -> Any:
    """Run the command that was asked for; returns its exit code."""
    try:
        app()
    except SystemExit as end:  # typer's own: the user's code cannot raise it here
        return end.code
    except Interrupted:
        _say(_interruption())
    except StropError as error:
        _say("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return error.exit_code
    except Exception as error:
        if os.environ.get("STROP_TRACEBACK"):
            raise
        _say(_bug(error))
    return 1


def _interruption() -> str:
    number = interrupts.received()
    assert number is not None
    when = "" if interrupts.exit_code() else "; it came after the artifact was written"
    return f"ended by {number.name}{when}"


def _say(problem: str) -> None:
    # Not wrapped: a message may be searched for, and holds paths.
    err_console.say(f"strop: {problem}", "red")


def _bug(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    notes = getattr(error, "__notes__", [])
    during = "".join(f", {note}" for note in notes[:1])
    sentence = (
        f"this is a bug in strop{during}: {type(error).__name__}: {error} "
        f"({Path(place.filename).name}:{place.lineno}). Please report it; with STROP_TRACEBACK=1 "
        "in the environment the whole trace is shown."
    )
    return "\n".join([sentence, *notes[1:]])
