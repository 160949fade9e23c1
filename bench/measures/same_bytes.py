"""Whether two checkouts build the same files: MiniLM and the zoo, by every CPU recipe.

``python -m strop.bench.measures.same_bytes BEFORE AFTER`` takes two checkouts, or files with the
hashes of one that ``--save FILE`` wrote. The models are this checkout's for both. A refactoring
must leave every hash as it is.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.processes.launch import require_success, run_python
from strop.bench.records.figures import console
from strop.compiler import Model

BENCH = Path(__file__).resolve().parents[1]
MODULE = "strop.bench.measures.same_bytes"
RECIPES = ("cpu-fp32", "cpu-int8")
Hashes = dict[str, str]
"""By ``model recipe``: the SHA-256 of ``model.onnx`` and its weights, or the error's first line."""


def hashes_of(place: Path) -> Hashes:
    """The hashes of a checkout, built by a process that imports it; or those that were saved."""
    if place.is_file():
        saved: Hashes = json.loads(place.read_text())
        return saved
    with tempfile.TemporaryDirectory() as name:
        folder, result = Path(name), Path(name) / "hashes.json"
        _link(folder / "strop", place.resolve())
        environ = {"PYTHONPATH": name, "PYTHONHASHSEED": "0"}
        arguments = ("-P", "-m", MODULE, "--build", str(result))
        require_success(run_python(*arguments, folder=folder, environ=environ), "the builds")
        built: Hashes = json.loads(result.read_text())
        return built


def _link(package: Path, checkout: Path) -> None:
    """Make a package of the benchmarks of this checkout and everything else of another."""
    package.mkdir()
    rooms = {init.parent.name: init.parent for init in checkout.glob("*/__init__.py")}
    for name, room in (rooms | {"bench": BENCH}).items():
        (package / name).symlink_to(room)


def build_all() -> Iterator[tuple[str, str]]:
    """Build every model by every recipe with the compiler that this process imports."""
    from strop.bench.models.minilm import make
    from strop.bench.models.zoo import ZOO

    models = {"MiniLM": make} | {name: entry.make for name, entry in ZOO.items()}
    for name, factory in models.items():
        for recipe in RECIPES:
            yield f"{name} {recipe}", _built(factory, recipe)


def _built(factory: Callable[[], Model], recipe: str) -> str:
    import torch

    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.manual_seed(0)  # some models draw weights when they are made
            build(factory(), Path(folder) / "out", recipe=recipe, instruments="off")
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
    console.print("\n  ".join([f"{len(first)} files, {len(found)} differ", *found]))
    raise typer.Exit(3 if found else 0)


if __name__ == "__main__":
    typer.run(main)
