"""``strop debug``: which pass, rewrite, node and source line. Nothing heavy is imported early."""

from __future__ import annotations

import typer

from strop.compiler.cli.debug.bisect import bisect
from strop.compiler.cli.debug.bits import bits
from strop.compiler.cli.debug.bundles import reduce, replay
from strop.compiler.cli.debug.diff import diff
from strop.compiler.cli.debug.groups import groups
from strop.compiler.cli.debug.profile import profile
from strop.compiler.cli.debug.sensitivity import sensitivity
from strop.compiler.cli.debug.why_not import why_not

app = typer.Typer(
    help="Find the pass, the rewrite, the node and the source line behind a problem.",
    no_args_is_help=True,
)
app.command()(bisect)
app.command()(bits)
app.command("why-not")(why_not)
app.command()(diff)
app.command()(groups)
app.command()(profile)
app.command()(sensitivity)
app.command()(replay)
app.command()(reduce)
