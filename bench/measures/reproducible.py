"""Two builds, in different folders, with different hash seeds: the same bytes, and no path inside.

``python -m strop.bench.measures.reproducible``
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.models.sources import source_of
from strop.bench.processes.launch import run_strop
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.util.terminal import Table

RECIPES = ("cpu-fp32", "cpu-int8")
# Any two builds differ in times, memory and the machine; these are the files that hold them.
DIFFERS = {"build.json", "report.html"}
# Folders that hold sources, packages or temporary files on any machine. What follows the first
# slash must look like a path: weights hold every short run of bytes.
ABSOLUTE = re.compile(
    rb"/(?:home|root|tmp|usr|opt|var|mnt|srv|work|Users|build|workspace)/[\w.+-]+/[\w.+-]+"
)


@dataclass(frozen=True)
class Comparison:
    """Two builds of one model.

    Attributes:
        differing: names of files that differ.
        paths: absolute paths in either, each as ``file: path``.
        bytes: size of each file.
    """

    differing: Sequence[str]
    paths: Sequence[str]
    bytes: Mapping[str, int]


def compare(source: str, recipe: str) -> Comparison:
    """Build twice, and compare."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        roots = [Path(first) / "a", Path(second) / "another" / "deeper"]
        built = [build_at(root, source, recipe, seed) for seed, root in enumerate(roots, 1)]
        own = [*roots, Path.home(), Path(sys.prefix), Path(__file__).parents[2]]
        inside = [hit for artifact in built for hit in paths_inside(artifact, own)]
        sizes = {p.name: p.stat().st_size for p in sorted(built[0].iterdir())}
        return Comparison(differing(*built), inside, sizes)


def build_at(folder: Path, source: str, recipe: str, seed: int) -> Path:
    """Build through the command line in a new process; returns the artifact."""
    folder.mkdir(parents=True)
    build = ("build", source, "-o", "artifact", "--recipe", recipe)
    run_strop(folder, *build, PYTHONHASHSEED=str(seed))
    return folder / "artifact"


def differing(first: Path, second: Path) -> list[str]:
    """Names of files that one folder lacks or that differ in any byte."""
    names = {p.relative_to(f).as_posix() for f in (first, second) for p in f.rglob("*")}
    return sorted(n for n in names - DIFFERS if _bytes(first / n) != _bytes(second / n))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def paths_inside(folder: Path, own: Sequence[Path] = ()) -> list[str]:
    """``file: path`` for every absolute path found in a file; ``own`` are folders in use now."""
    known = [str(p).encode() for p in own if len(p.parts) > 1]
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        hits = {m[0] for m in ABSOLUTE.finditer(content)} | {k for k in known if k in content}
        found += [f"{path.name}: {h.decode(errors='replace')}" for h in sorted(hits)]
    return found


def judge(found: Mapping[str, Comparison]) -> list[Figure]:
    """The figures of all recipes."""
    return [
        figure
        for recipe, both in found.items()
        for figure in (
            Figure(f"{recipe}: files that differ", len(both.differing), at_most=0),
            Figure(f"{recipe}: absolute paths inside", len(both.paths), at_most=0),
        )
    ]


def main(
    recipe: Annotated[list[str] | None, typer.Option(help="A recipe; repeatable.")] = None,
    source: Annotated[str, typer.Option(help="FILE.py:make; MiniLM by default.")] = "",
    results: ResultsFolder = RESULTS,
) -> None:
    """Build twice by each recipe, and compare the artifacts byte by byte."""
    source = source or source_of("minilm", "make")
    found: dict[str, Comparison] = {}
    for name in recipe or RECIPES:
        with console.status(f"building twice: {name}"):
            found[name] = compare(source, name)
    wrong = [(name, what) for name, f in found.items() for what in (*f.differing, *f.paths)]
    if wrong:
        table = Table("recipe", "what")
        for row in wrong:
            table.add_row(*row)
        console.print(table)
    # The paths themselves are this machine's own: they are shown, and only counted on record.
    measured = {
        name: {"differing": f.differing, "paths": len(f.paths), "bytes": f.bytes}
        for name, f in found.items()
    }
    title = "two builds, different folders, different PYTHONHASHSEED"
    show_and_save("reproducible", title, environment(), judge(found), measured, results)


if __name__ == "__main__":
    typer.run(main)
