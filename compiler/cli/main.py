"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from strop.bench.cli import app as bench_app
from strop.compiler.cli.build import build
from strop.compiler.cli.debug import app as debug_app
from strop.compiler.cli.ending import exit_code_of
from strop.compiler.cli.generate import generate
from strop.compiler.cli.inspect import inspect
from strop.compiler.cli.kernels import kernels
from strop.compiler.cli.lists import list_passes, list_tasks, show_cache
from strop.compiler.cli.search import search
from strop.compiler.util import interrupts
from strop.compiler.util.user_code import held_to_return


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
app.command()(build)
app.command()(inspect)
app.command()(generate)
app.command()(search)
app.command("passes")(list_passes)
app.command("cache")(show_cache)
app.command("tasks")(list_tasks)
app.command()(kernels)
app.add_typer(debug_app, name="debug")
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Entry point: errors and signals become sentences and exit codes."""
    interrupts.listen()
    code = exit_code_of(app)
    interrupts.stop_listening()
    if interrupts.received() is not None:
        interrupts.leave()
    sys.exit(code)
