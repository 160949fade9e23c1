"""``strop debug diff``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.prompts import PromptIds, PromptText, given_prompt
from strop.compiler.util.errors import UsageError
from strop.compiler.util.terminal import Table

if TYPE_CHECKING:
    from strop.compiler.debug.diff import Difference


def diff(
    before: Annotated[Path, typer.Argument(help="An IR snapshot of --dump-ir, or an artifact.")],
    after: Annotated[Path, typer.Argument(help="Another one, or the artifact made from it.")],
    node: Annotated[str, typer.Option(help="%name: that value, its inputs and users only.")] = "",
    source: Annotated[str, typer.Option(help="For inputs of artifacts: FILE.py:make.")] = "",
    program: options.Program = "",
    count: Annotated[int, typer.Option(min=1, help="How many values to show.")] = 20,
    prompt: PromptText = None,
    ids: PromptIds = None,
    max_new: Annotated[int | None, typer.Option(help="The most tokens to make.")] = None,
) -> None:
    """Compare snapshots, artifacts, or one with the other: text, and shared values, worst first.

    With a prompt, two artifacts go on with it, and the first token that differs is shown.
    """
    if prompt is not None or ids is not None:
        _print_parting(before, after, given_prompt(prompt, ids), max_new)
        return
    from strop.compiler.debug import diff as compare
    from strop.compiler.debug.diff import diff_snapshots, history, snapshot_of

    if node and after.is_dir():
        raise UsageError("--node is for snapshots: artifacts hold the lowered graph only")
    if before.is_dir():
        _print_difference(compare.diff_artifacts(before, after, source, program), count)
        return
    if after.is_dir():
        _print_difference(compare.diff_lowered(snapshot_of(before), after, program), count)
        return
    first, second = snapshot_of(before), snapshot_of(after)
    found = diff_snapshots(first, second)
    if node:
        from strop.compiler.debug.apart import load_apart

        out_console.say(history(load_apart(first), load_apart(second), node))
        found = found.only(node)
    _print_difference(found, count)


def _print_parting(
    before: Path, after: Path, prompt: str | Sequence[int], max_new: int | None
) -> None:
    from strop.compiler.debug.parting import parting

    found = parting(before, after, prompt, max_new)
    if found.same:
        out_console.say(found.same, "dim")
    if found.number is None:
        out_console.say("all tokens are the same")
        return
    first, second = ("the end" if t is None else f"{t.id} {t.text!r}" for t in found.tokens)
    out_console.say(
        f"the first {found.number} tokens are the same; then comes {first} in the first and "
        f"{second} in the second"
    )


def _print_difference(found: Difference, count: int) -> None:
    out_console.say(found.text or "the texts are equal")
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
    out_console.print(table)
    out_console.say(
        f"{len(found.shared)} values are in both, {len(found.only_before)} in the first only, "
        f"{len(found.only_after)} in the second only"
    )
