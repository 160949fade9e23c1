"""``strop debug bits``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import Source, capture_source
from strop.compiler.util.terminal import Console, Table

if TYPE_CHECKING:
    from strop.compiler.debug.bits import Width


def bits(
    source: Source,
    recipe: options.RecipeName = "cpu-int4",
    widths: Annotated[
        list[int], typer.Option("--bits", min=2, max=8, help="Of a weight; repeatable.")
    ] = [8, 6, 4, 3, 2],  # noqa: B006  (typer copies it)
    settings: options.Settings = [],  # noqa: B006
    program: options.Program = "",
) -> None:
    """Show how large a model is, and how far its outputs move, with weights of fewer bits."""
    from strop.compiler.debug.bits import widths as measured
    from strop.compiler.recipes.loading import asked_recipe

    captured, pipeline = capture_source(source, asked_recipe(recipe, settings), program)
    title = f"weights of fewer bits by {recipe}; outputs on the example inputs, against float"
    table = Table("bits", "size", "of float", "cosine", "SQNR", "max abs", title=title)
    with Console(file=sys.stderr).status("quantizing") as status:
        for row in measured(captured.program, pipeline, captured.cases[0].inputs, widths):
            status.update(f"{row.bits} bits are done")
            table.add_row(*cells(row))
    out_console.print(table)


def cells(row: Width) -> list[str]:
    """One row in words; what has no float outputs has no cosine."""
    apart = row.apart
    cosine = "–" if apart.cosine is None else f"{apart.cosine:.5f}"
    ratio = "–" if apart.sqnr_db is None else f"{apart.sqnr_db:.1f} dB"
    size = f"{row.bytes / 1e6:.3g} MB"
    return [str(row.bits), size, f"{row.share:.1%}", cosine, ratio, f"{apart.max_abs:.2g}"]
