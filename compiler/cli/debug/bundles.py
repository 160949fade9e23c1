"""``strop debug replay`` and ``strop debug reduce``: what is done with a crash bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import dim
from strop.compiler.util.errors import UsageError

Own = Annotated[
    str,
    typer.Option(
        "--pass", help="FILE.py:Name, where the pass is not strop's, or NAME{option=FILE.py:name}."
    ),
]


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
    what = f"{failure.kind}: {failure.message} ({failure.place})"
    out_console.say(f"pass '{read.step}' fails {same}: {what}")


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
    program = reducer.reduce(read, read.run_pass(own or None), place, dim)
    out_console.say(str(program))
    out_console.say(f"{sum(1 for _ in program.calls())} calls are left, in {place}")
