"""The commands of ``strop bench``. Nothing heavy is imported until one runs."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from strop.bench.cli import options
from strop.compiler.util.terminal import write

DUEL = "duel"
MORE = """Peers: eager, compile, ort (torch.onnx.export), ort-optimizer
(onnxruntime.transformers.optimizer), ort-dynamic (quantize_dynamic), hf (transformers.exporters
with ort_fusions), hf-dynamic, openvino, openvino-nncf. Of an artifact that makes texts: eager,
genai (onnxruntime-genai's own builder, int4), genai-int8, genai-fp32, openvino-genai (int4).

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
    words: options.Words = None,
    source: options.Source = "",
    program: options.Program = "",
    against: options.Against = None,
    shapes: options.Shapes = None,
    threads: options.Threads = "",
    rounds: options.Rounds = None,
    bouts: options.Bouts = None,
    timeout: options.Timeout = None,
    patience: options.Patience = None,
    json: options.Json = None,
    html: options.Html = None,
    fail_if: options.FailIf = None,
    suite: options.Suite = "",
    results: options.Results = None,
    schema: options.Schema = False,
) -> None:
    """Compare an artifact with what you would otherwise ship, on your machine."""
    from strop.bench.cli import duels, suites
    from strop.bench.cli.wanted import Wanted, plan_of

    if schema:
        write(duels.schema())
        return
    plan = plan_of(threads, bouts=bouts, rounds=rounds, timeout=timeout, patience=patience)
    places = (json, html)
    wanted = Wanted(
        plan, words or [], source, against, shapes or [], *places, fail_if or [], program
    )
    if suite:
        suites.run_suite(suite, wanted, results)
    else:
        duels.run_duel(wanted)


@app.command()
def compare(before: options.Before, after: options.After) -> None:
    """Say what got worse beyond the noise; exit 3 if something did."""
    from strop.bench.cli.comparisons import run_compare

    run_compare(before, after)
