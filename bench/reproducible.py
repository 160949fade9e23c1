"""Two builds, in different folders, with different hash seeds: the same bytes, and no path inside.

``python -m strop.bench.reproducible``
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.launch import run_strop
from strop.bench.machine import environment
from strop.compiler.util.terminal import Table

RECIPES = ("cpu-fp32", "cpu-int8")
# Times, memory and the machine are what builds differ in, and these files are where they go.
DIFFERS = {"build.json", "report.html"}
# Folders that hold sources, packages or temporary files on any machine. What follows the first
# slash must look like a path: weights hold every short run of bytes.
ABSOLUTE = re.compile(
    rb"/(?:home|root|tmp|usr|opt|var|mnt|srv|work|Users|build|workspace)/[\w.+-]+/[\w.+-]+"
)


def build_at(folder: Path, source: str, recipe: str, seed: int) -> Path:
    """Build through the command line in a process of its own; returns the artifact."""
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


def compare(source: str, recipe: str) -> dict[str, Any]:
    """Build twice and report what differs, and which absolute paths are inside."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        roots = [Path(first) / "a", Path(second) / "another" / "deeper"]
        built = [build_at(root, source, recipe, seed) for seed, root in enumerate(roots, 1)]
        own = [*roots, Path.home(), Path(sys.prefix), Path(__file__).parents[1]]
        inside = [hit for artifact in built for hit in paths_inside(artifact, own)]
        sizes = {p.name: p.stat().st_size for p in sorted(built[0].iterdir())}
        return {"differing": differing(*built), "paths": inside, "bytes": sizes}


def main(
    recipe: Annotated[list[str] | None, typer.Option(help="A recipe; repeatable.")] = None,
    source: Annotated[str, typer.Option(help="FILE.py:make; MiniLM by default.")] = "",
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Build twice per recipe and compare the artifacts byte by byte."""
    source = source or f"{Path(__file__).with_name('minilm.py')}:make"
    found, figures = {}, []
    for name in recipe or RECIPES:
        with console.status(f"building twice: {name}"):
            found[name] = compare(source, name)
        differ, inside = found[name]["differing"], found[name]["paths"]
        figures.append(Figure(f"{name}: files that differ", len(differ), at_most=0))
        figures.append(Figure(f"{name}: absolute paths inside", len(inside), at_most=0))
        if differ or inside:
            table = Table("recipe", "what")
            for what in (*differ, *inside):
                table.add_row(name, what)
            console.print(table)
    show(figures, "two builds, different folders, different PYTHONHASHSEED")
    # The paths themselves are this machine's own: they are shown, and only counted on record.
    counted = {n: {**f, "paths": len(f["paths"])} for n, f in found.items()}
    save("reproducible", environment(), figures, counted, results)


if __name__ == "__main__":
    typer.run(main)
