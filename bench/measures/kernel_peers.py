"""Our kernels beside those of other packages, compiled for the same GPU; none is needed.

``python -m strop.bench.measures.kernel_peers``; needs ``pip install 'strop[peers]'``. Registers,
spills, shared memory and occupancy are read from the machine code. Bytes are counted while Triton's
interpreter runs both at smaller sizes, or follow from the peer's tiles where it cannot run it. Of a
peer's configurations without spills it is the one with the fewest programs, so with the least to
read again, and of several the one with most occupancy; gemlite comes with the configurations that
its authors measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from strop.bench.kernel_peers.calls import WORKS, Work
from strop.bench.kernel_peers.compiled import Tried, our_kernel, peer_kernels
from strop.bench.kernel_peers.traffic import our_bytes, peer_bytes
from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.util.terminal import Table
from strop.kernels.architecture import ARCHITECTURES, Architecture
from strop.kernels.binary import Binary
from strop.kernels.inspect import read
from strop.kernels.occupancy import occupancy

TIMEOUT = 1800.0


@dataclass(frozen=True)
class Side:
    """What one of both needs; less is better, but for occupancy."""

    registers: int
    spills: int
    shared_memory: int
    occupancy: float
    bytes_per_element: float


def compare(number: int, architecture: Architecture) -> dict[str, Side | str]:
    """Both sides of a work, or why there is none of the peer's."""
    work = WORKS[number]
    ours = our_kernel(work, architecture).checked.binary
    own_bytes = isolated(our_bytes, number, timeout=TIMEOUT) / work.elements(*work.counted)
    sides: dict[str, Side | str] = {"ours": _side(ours, architecture, own_bytes)}
    if _installed(work) is None:
        sides[work.package] = f"not installed: pip install {work.package}"
        return sides
    tried: Sequence[Tried] = isolated(peer_kernels, number, architecture.name, timeout=TIMEOUT)
    chosen = min(tried, key=lambda one: _rank(one, architecture))
    moved = _peer_bytes(number, architecture, chosen) / work.elements(*work.counted)
    sides[work.package] = _side(chosen.binary, architecture, moved)
    return sides


def _peer_bytes(number: int, architecture: Architecture, chosen: Tried) -> int:
    work = WORKS[number]
    if work.formula is not None:
        return work.formula(chosen.configuration, *work.counted)
    settings = (architecture.name, chosen.configuration)
    counted: int = isolated(peer_bytes, number, *settings, timeout=TIMEOUT)
    return counted


def _installed(work: Work) -> str | None:
    try:
        return version(work.package)
    except PackageNotFoundError:
        return None


def _rank(tried: Tried, architecture: Architecture) -> tuple[bool, int, float]:
    side = _side(tried.binary, architecture, 0.0)
    return side.spills > 0, tried.programs, -side.occupancy


def _side(binary: Binary, architecture: Architecture, moved: float) -> Side:
    reading = read(binary)
    held = occupancy(architecture, binary.warps, reading.registers, reading.shared_memory)
    return Side(reading.registers, reading.spills, reading.shared_memory, held.share, moved)


def verdicts(sides: Mapping[str, Side | str]) -> Iterator[int]:
    """1 for each column in which ours is better, -1 where it is worse, 0 where both are equal."""
    ours, peer = sides.values()
    if isinstance(ours, str) or isinstance(peer, str):
        return
    less, more = asdict(ours), asdict(peer)
    less["occupancy"], more["occupancy"] = more["occupancy"], less["occupancy"]
    for name in less:
        yield (less[name] < more[name]) - (less[name] > more[name])


def _rows(table: Table, name: str, sides: Mapping[str, Side | str]) -> None:
    for who, side in sides.items():
        if isinstance(side, str):
            table.add_row(name, who, side)
            continue
        table.add_row(
            name, who, str(side.registers), str(side.spills), str(side.shared_memory),
            f"{side.occupancy:.0%}", f"{side.bytes_per_element:.2f}",
        )  # fmt: skip


def main(
    arch: Annotated[str, typer.Option(help="sm80, sm89 or sm90.")] = "sm90",
    jobs: Annotated[int, typer.Option(min=1, help="Comparisons at a time.")] = 2,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compile our kernels and those of peers, and compare what they use."""
    architecture = ARCHITECTURES[arch]
    place = environment()
    table = Table(
        "work", "whose", "registers", "spills", "shared memory", "occupancy", "bytes per element"
    )
    measured: dict[str, Any] = {}
    judged: list[int] = []
    with ThreadPoolExecutor(jobs) as pool:
        compared = list(pool.map(lambda number: compare(number, architecture), range(len(WORKS))))
    for work, sides in zip(WORKS, compared):
        judged += verdicts(sides)
        _rows(table, work.name, sides)
        measured[work.name] = {
            who: side if isinstance(side, str) else asdict(side) for who, side in sides.items()
        }
    console.print(table)
    versions = {work.package: _installed(work) for work in WORKS}
    figures = [
        Figure(f"{arch}: columns in which ours is worse", judged.count(-1), at_most=0),
        Figure(
            f"{arch}: share of columns in which ours is better",
            judged.count(1) / max(len(judged), 1), at_least=0.5,
        ),
    ]  # fmt: skip
    title = f"kernels beside peers' for {arch}, compiled and not run"
    facts = {"architecture": arch, "versions": versions, "works": measured}
    show_and_save(f"kernel_peers_{arch}", title, place, figures, facts, results)


if __name__ == "__main__":
    typer.run(main)
