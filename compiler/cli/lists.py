"""``strop passes``, ``strop cache`` and ``strop tasks``."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from inspect import getdoc
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli.consoles import out_console
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.terminal import Table

if TYPE_CHECKING:
    from strop.compiler.rewriting.passes import Pass


def list_passes(name: Annotated[str, typer.Argument(help="Show one pass in full.")] = "") -> None:
    """List the passes, or show the options and documentation of one."""
    from strop.compiler.recipes.registry import pass_classes

    known = pass_classes()
    if name and name not in known:
        raise UsageError(f"unknown pass '{name}'{did_you_mean(name, list(known))}")
    if name:
        _print_pass(name, known[name])
        return
    table = Table("pass", "options", "what it does")
    for key, kind in known.items():
        options = ", ".join(f.name for f in dataclasses.fields(kind))
        table.add_row(key, options, (getdoc(kind) or "").splitlines()[0])
    out_console.print(table)


def _print_pass(name: str, kind: type[Pass]) -> None:
    out_console.print(name, style="bold")
    out_console.print(getdoc(kind))
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        out_console.print(f"  {field.name} = {default!r}  ({field.type})")
    for word, others in (("after", kind.after), ("before", kind.before)):
        if others:
            out_console.print(f"  must run {word}: {', '.join(others)}")


def show_cache(
    clear: Annotated[
        bool, typer.Option(help="Remove everything that passes learned, and compiled kernels.")
    ] = False,
) -> None:
    """Show what passes that learn have kept, and compiled kernels, or clear both."""
    from strop.compiler.artifact.report import units
    from strop.compiler.frontend.data import learned_cache
    from strop.compiler.lower.triton.store import kernel_cache

    cache, kernels = learned_cache(), kernel_cache()
    if clear:
        cache.clear()
        kernels.clear()
    table = Table("entry", "size", "last used")
    for entry in cache.entries():
        used = datetime.fromtimestamp(entry.used).isoformat(sep=" ", timespec="minutes")
        table.add_row(entry.key, units.size(entry.bytes), used)
    for entry in cache.interrupted():
        table.add_row(f"{entry.key} (interrupted)", units.size(entry.bytes), "")
    out_console.print(table)
    out_console.say(f"{cache.root}, at most {units.size(cache.most_bytes)}")
    held = [entry.bytes for entry in kernels.entries()]
    out_console.say(
        f"{kernels.root}: {len(held)} compiled kernels, {units.size(sum(held))}, at most "
        f"{units.size(kernels.most_bytes)}"
    )


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
