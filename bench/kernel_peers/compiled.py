"""Launches of ours and of peers, compiled and read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.bench.kernel_peers.calls import WORKS, Work
from strop.bench.kernel_peers.recorder import Recorded, Recorder
from strop.bench.kernel_peers.stand_in import pretend
from strop.bench.records.figures import console
from strop.compiler.util.shown import shown
from strop.kernels.architecture import ARCHITECTURES, Architecture
from strop.kernels.binary import Binary
from strop.kernels.examples import taken_launches
from strop.kernels.launching import recording
from strop.kernels.selection import Taken, select

# Of a peer's configurations, this many are compiled, evenly from all that its tuner would try.
_MOST = 12


@dataclass(frozen=True)
class Tried:
    """A peer's kernel with one of its configurations.

    Attributes:
        binary: the compiled kernel.
        programs: of the launch.
        configuration: what the peer's tuner would choose: tiles, warps, stages.
    """

    binary: Binary
    programs: int
    configuration: dict[str, Any]


def record(
    work: Work, sizes: tuple[int, ...], configuration: Mapping[str, Any] | None = None
) -> list[Recorded]:
    """What the peer's launcher launches, once for each configuration that it would try."""
    module = importlib.import_module(work.module)
    recorder = Recorder(getattr(module, work.kernel), configuration)
    setattr(module, work.kernel, recorder)
    work.peer(*sizes)
    return recorder.launches


def peer_kernels(number: int, architecture: str) -> list[Tried]:
    """The peer's kernel compiled in this process; what does not compile is left out."""
    from strop.kernels.compiling import compiled

    place = ARCHITECTURES[architecture]
    pretend(place)
    launches = record(WORKS[number], WORKS[number].sizes)
    found: list[Tried] = []
    for one in launches[:: -(-len(launches) // _MOST)]:
        x, y, z = (*one.grid, 1, 1)[:3]
        try:
            binary = compiled(one.function, one.variant(), place.capability)
        # A tuner goes on where a configuration does not compile, whatever is raised.
        except Exception as error:
            console.print(shown(f"{WORKS[number].name}: {one.configuration}: {error}"))
            continue
        found.append(Tried(binary, x * y * z, dict(one.configuration)))
    return found


def our_kernel(work: Work, architecture: Architecture) -> Taken:
    """The first kernel that our launcher launches, as a build takes it."""
    with recording() as recorded:
        work.ours(*work.sizes)
    launches = list(taken_launches(recorded))
    return select(launches[:1], architecture)[0][0]
