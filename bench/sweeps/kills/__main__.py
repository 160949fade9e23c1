"""End builds at random moments by signals, and check the output folder afterwards.

``python -m strop.bench.sweeps.kills --seed 0`` builds onto an artifact again and again. Each build
is ended by SIGKILL, SIGINT or SIGTERM, half of them at any moment and half after the build began to
write. Afterwards the folder must hold the old artifact or the new one, complete, and the exit code
must say which. Moments are measured in processor time, which does not depend on other load.
"""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.sweeps.kills.stage import SIGNALS, Ending, Stage
from strop.compiler.util.terminal import Table


def end_builds(stage: Stage, seed: int, moments: int) -> Iterator[Ending]:
    """End builds by each of the signals at random moments, half of them while it writes.

    A moment is drawn again where the build ended before it.
    """
    chance = random.Random(seed)
    for moment in range(moments):
        first = stage.begins if moment % 2 else 0.0
        for number in SIGNALS:
            ending = None
            while ending is None:
                ending = stage.end(number, round(chance.uniform(first, stage.ends), 3))
            yield ending


def table(wrong: Sequence[Ending]) -> Table:
    """Builds that did not end as they should."""
    made = Table("signal", "seconds", "code", "stands", "left", "said")
    for e in wrong:
        made.add_row(e.name, str(e.seconds), str(e.code), e.stands, str(e.left), e.said)
    return made


def judge(endings: Sequence[Ending], left: int) -> list[Figure]:
    """The figures; ``left`` is the number of workspaces that a build to its end leaves."""
    return [
        Figure("builds ended by a signal", len(endings)),
        Figure("neither artifact whole", sum(not e.is_whole for e in endings), at_most=0),
        Figure("wrong exit code", sum(not e.is_told for e in endings), at_most=0),
        Figure("workspaces left by the next build", left, at_most=0),
        Figure("old artifact stands", sum(e.stands == "old" for e in endings)),
        Figure("new artifact stands", sum(e.stands == "new" for e in endings)),
    ]


def main(
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    moments: Annotated[int, typer.Option(min=1, help="How many for each signal.")] = 30,
    results: ResultsFolder = RESULTS,
) -> None:
    """End builds at random moments; the output must be the old or the new artifact."""
    # Where SIGINT is ignored, as under nohup, builds would inherit that and ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    endings = []
    with tempfile.TemporaryDirectory(prefix="strop-kills-") as folder:
        stage = Stage(Path(folder))
        with console.status("") as status:
            for ending in end_builds(stage, seed, moments):
                endings.append(ending)
                status.update(f"{len(endings)} of {moments * len(SIGNALS)} builds ended")
        left = stage.left_by_a_full_build()
    if wrong := [e for e in endings if not (e.is_whole and e.is_told)]:
        console.print(table(wrong))
    kept = [{k: v for k, v in asdict(e).items() if k != "said"} for e in endings]
    measured = {"seed": seed, "endings": kept}
    title = f"builds ended at random moments, seed {seed}"
    show_and_save("kills", title, environment(), judge(endings, left), measured, results)


if __name__ == "__main__":
    typer.run(main)
