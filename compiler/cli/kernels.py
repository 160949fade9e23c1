"""``strop kernels``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli.consoles import out_console
from strop.compiler.util.errors import RuntimeRefusedError, UsageError, did_you_mean
from strop.compiler.util.terminal import Table, write

if TYPE_CHECKING:
    from strop.kernels.architecture import Architecture
    from strop.kernels.kernel import Kernel
    from strop.kernels.survey import Entry, Row


def kernels(
    names: Annotated[list[str] | None, typer.Argument(help="Only these; all by default.")] = None,
    arch: Annotated[
        list[str] | None, typer.Option(help="sm80, sm89 or sm90; repeatable, all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that was read.")] = False,
) -> None:
    """Compile the Triton kernels without a GPU and show what they use; exit 5 for broken limits."""
    from strop.kernels.survey import survey

    chosen, architectures = _kernels(names), _architectures(arch)
    found = {one: survey(chosen, one) for one in architectures}
    if as_json:
        values = {
            one.name: [e.to_json() for row in found[one] for e in row.entries] for one in found
        }
        write(json.dumps(values, indent=2) + "\n")
    else:
        for architecture, rows in found.items():
            _show(architecture, rows)
    problems = [row.problem for rows in found.values() for row in rows if row.problem]
    if problems:
        raise RuntimeRefusedError("\n".join(dict.fromkeys(problems)))


def _kernels(names: Sequence[str] | None) -> list[Kernel]:
    from strop.kernels import registry

    known = registry.names()
    for name in names or ():
        if name not in known:
            raise UsageError(f"there is no kernel '{name}'{did_you_mean(name, known)}")
    return [registry.kernel(name) for name in names or known]


def _architectures(names: Sequence[str] | None) -> list[Architecture]:
    from strop.kernels.architecture import ARCHITECTURES

    for name in names or ():
        if name not in ARCHITECTURES:
            raise UsageError(
                f"there is no architecture '{name}'{did_you_mean(name, list(ARCHITECTURES))}"
            )
    return [ARCHITECTURES[name] for name in names or ARCHITECTURES]


def _show(architecture: Architecture, rows: Sequence[Row]) -> None:
    for row in rows:
        first = row.entries[0]
        table = Table(
            "", "tile", "warps", "stages", "registers", "spills", "shared", "occupancy",
            "tensor core", "bound µs", "model µs",
            title=f"{architecture.name} {first.kernel}: {first.example}",
        )  # fmt: skip
        table.box = None
        for entry in row.entries:
            table.add_row(*_cells(entry))
        out_console.print(table, "")
    out_console.say(
        "*: what a build takes. The first configuration is what the kernel's buckets say, others "
        f"are candidates. Times are modelled for {architecture.device}, not measured."
    )


def _cells(entry: Entry) -> Iterator[str]:
    from strop.kernels.gate import Checked

    configuration, checked, bounds = entry.configuration, entry.checked, entry.modelled
    yield "*" if entry.taken else ""
    yield " ".join(f"{name}={value}" for name, value in configuration.constants.items())
    yield str(configuration.num_warps)
    yield str(configuration.num_stages)
    if not isinstance(checked, Checked) or bounds is None:
        yield "failed"
        return
    reading = checked.reading
    yield str(reading.registers)
    yield str(reading.spills)
    yield str(reading.shared_memory)
    yield f"{checked.occupancy.share:.0%}"
    yield ", ".join(f"{kind} x{count}" for kind, count in reading.tensor_core.items())
    yield f"{bounds.seconds * 1e6:.2f}"
    yield "" if entry.estimated is None else f"{entry.estimated * 1e6:.2f}"
