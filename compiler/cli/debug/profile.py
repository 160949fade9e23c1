"""``strop debug profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console


def profile(
    out: Annotated[Path, typer.Argument(help="An artifact folder.")],
    shapes: Annotated[
        list[str], typer.Option(help="Sizes of dynamic dims: 'batch=1 seq=128'; repeatable.")
    ] = [],  # noqa: B006  (typer copies it)
    source: Annotated[str, typer.Option(help="Where inputs come from: FILE.py:make.")] = "",
    program: options.Program = "",
    runs: Annotated[int, typer.Option(min=1, help="Number of runs.")] = 20,
    depth: Annotated[int, typer.Option(min=1, help="How many names of a module path to show.")] = 3,
    top: Annotated[int, typer.Option(min=1, help="Rows of each table, at most.")] = 15,
    as_json: Annotated[
        Path | None,
        typer.Option("--json", dir_okay=False, resolve_path=True, help="Write it to a file."),
    ] = None,
) -> None:
    """Show where the milliseconds are: by operator, pass, module, source line and node."""
    from strop.compiler.debug.profile import profile as measure
    from strop.compiler.debug.profile_view import record, render
    from strop.compiler.util.files.writing import require_writable, write_whole

    require_writable(as_json, "--json")
    found = measure(out, shapes, source=source, runs=runs, program=program)
    if as_json is not None:
        write_whole(as_json, json.dumps(record(found, depth), indent=2, sort_keys=True) + "\n")
    for part in render(found, depth, top):
        out_console.print(part)
