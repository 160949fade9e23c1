"""Whether two checkouts build the same files: MiniLM and the zoo, by every CPU recipe.

``python -m strop.bench.same_bytes BEFORE AFTER`` takes two checkouts, or files with the hashes of
one that ``--save FILE`` wrote. A refactoring must leave every hash as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

ROOMS = ("bench", "compiler", "passes")
RECIPES = ("cpu-fp32", "cpu-int8")
Hashes = dict[str, str]
"""By ``model recipe``: the SHA-256 of ``model.onnx`` and its weights, or the error's first line."""


def hashes_of(place: Path) -> Hashes:
    """The hashes of a checkout, built by a process that imports it; or those that were saved."""
    if place.is_file():
        saved: Hashes = json.loads(place.read_text())
        return saved
    with tempfile.TemporaryDirectory() as folder:
        package, result = Path(folder) / "strop", Path(folder) / "hashes.json"
        package.mkdir()
        for room in ROOMS:
            (package / room).symlink_to(place.resolve() / room)
        environ = os.environ | {"PYTHONPATH": folder, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--build", str(result)]
        subprocess.run(command, env=environ, check=True, cwd=folder)
        built: Hashes = json.loads(result.read_text())
        return built


def build_all() -> Iterator[tuple[str, str]]:
    """Build every model by every recipe with the strop that this process imports."""
    from strop.bench.minilm import make
    from strop.bench.zoo import ZOO

    models = {"MiniLM": make} | {name: entry.make for name, entry in ZOO.items()}
    for name, factory in models.items():
        for recipe in RECIPES:
            yield f"{name} {recipe}", _built(factory, recipe)


def _built(factory: object, recipe: str) -> str:
    import torch

    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.manual_seed(0)  # some models draw weights when they are made
            build(factory(), Path(folder) / "out", recipe=recipe, instruments="off")  # type: ignore[operator]
        except Exception as error:  # both checkouts must fail alike
            return str(error).splitlines()[0]
        files = sorted((Path(folder) / "out").glob("model.onnx*"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What only one of them has, or has otherwise."""
    return sorted(k for k in {*before, *after} if before.get(k) != after.get(k))


def main(
    before: Annotated[Path | None, typer.Argument(help="A checkout, or saved hashes.")] = None,
    after: Annotated[Path | None, typer.Argument(help="A checkout, or saved hashes.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the hashes of BEFORE here.")] = None,
    build: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Build with two checkouts and list what differs; exit 3 if anything does."""
    if build is not None:
        build.write_text(json.dumps(dict(build_all()), indent=1))
        return
    if before is None or (after is None) == (save is None):
        raise typer.BadParameter("give two checkouts, or one and --save FILE")
    first = hashes_of(before)
    if save is not None:
        save.write_text(json.dumps(first, indent=1))
        return
    assert after is not None
    found = differing(first, hashes_of(after))
    # Not above: a process that builds imports another checkout's modules.
    from strop.bench.figures import console

    console.say("\n  ".join([f"{len(first)} files, {len(found)} differ", *found]))
    raise typer.Exit(3 if found else 0)


if __name__ == "__main__":
    typer.run(main)
