"""``strop inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.summary import print_summary
from strop.compiler.util.errors import UsageError
from strop.compiler.util.terminal import Table, write


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
        for name in artifact.programs:
            _print_contract(artifact.program(name), name if len(artifact.programs) > 1 else "")
        print_summary(artifact)
    damaged = artifact.damaged()
    if damaged:
        raise UsageError(f"{out}: {'; '.join(damaged)}")
    if not as_json:
        out_console.print("all files match their hashes")


def _print_contract(program: dict[str, Any], name: str) -> None:
    title = f"program {name}" if name else ""
    table = Table("", "name", "dtype", "shape", title=title)
    for kind in ("inputs", "outputs"):
        for spec in program["contract"][kind]:
            shape = ", ".join(str(s) for s in spec["shape"])
            table.add_row(kind[:-1], spec["name"], spec["dtype"], shape)
    for dim in program["contract"]["dims"]:
        table.add_row("dim", dim["name"], "", f"{dim['min']} to {dim['max'] or 'any size'}")
    out_console.print(table)
