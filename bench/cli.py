"""``strop bench``: the command line of the benchmarks. Nothing heavy is imported until one runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from strop.compiler.util.terminal import write

DUEL = "duel"
MORE = """Peers: eager, compile, ort (torch.onnx.export), ort-optimizer
(onnxruntime.transformers.optimizer), ort-dynamic (quantize_dynamic), hf (transformers.exporters
with ort_fusions), hf-dynamic, openvino, openvino-nncf.

strop bench compare A.json B.json says what got worse from one --json to another."""


class _DuelByDefault(TyperGroup):
    """``strop bench OUT`` is ``strop bench duel OUT``."""

    # The context's class is click's, which typer carries under a private name.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [DUEL, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DuelByDefault,
    help="Measure an artifact against what you would otherwise ship.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command(DUEL, epilog=MORE)
def duel(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="OUT", help="An artifact folder.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="The original, FILE.py:make or hf:PATH, if it was built elsewhere.")
    ] = "",
    against: Annotated[
        str | None,
        typer.Option(help="Peers, by commas; the first is the baseline. Default: eager,ort."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(help="Sizes of dims, batch=1,8 seq=16,128. Default: the example's."),
    ] = None,
    threads: Annotated[str, typer.Option(help="Of every engine, 1,2. Default: all cores.")] = "",
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Turns of an engine at a case in a bout. Default: 5.")
    ] = None,
    bouts: Annotated[
        int | None, typer.Option(min=1, help="How often all engines start anew. Default: 5.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds after which an engine is given up. Default: 300."),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds a bout may wait for a disturbed machine. Default: 30."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(resolve_path=True, help="Write the record here.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(resolve_path=True, help="Write a page with plots here.")
    ] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help="Exit 3 if it holds, 'speedup<1.5'; repeatable.")
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Measure the README's: encoders, vision, decoders or build.")
    ] = "",
    results: Annotated[
        Path | None, typer.Option(resolve_path=True, help="Where --suite writes its JSON.")
    ] = None,
    schema: Annotated[bool, typer.Option(help="Print the JSON schema of --json.")] = False,
) -> None:
    """Race an artifact against what you would otherwise ship, on your machine."""
    from strop.bench import commands
    from strop.bench.harness.options import parse_threads
    from strop.bench.records.record import Plan

    if schema:
        write(commands.schema())
        return
    numbers = parse_threads(threads) if threads else [os.cpu_count() or 1]
    given = {"bouts": bouts, "rounds": rounds, "timeout": timeout, "patience": patience}
    plan = Plan.model_validate(
        {"threads": numbers, **{name: value for name, value in given.items() if value is not None}}
    )
    wanted = commands.Wanted(
        words or [], source, against, shapes or [], plan, json, html, fail_if or []
    )
    if suite:
        commands.run_suite(suite, wanted, results)
    else:
        commands.run_duel(wanted)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="What --json wrote.")],
    after: Annotated[Path, typer.Argument(help="The same, later.")],
) -> None:
    """Say what got worse beyond the noise; exit 3 if something did."""
    from strop.bench import commands

    commands.run_compare(before, after)
