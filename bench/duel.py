"""A duel: engines in processes of their own take turns on one model, and are compared in pairs.

``python -m strop.bench.duel`` runs MiniLM and prints the figures it is held to.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from strop.bench.engines import Array, Eager, Engine, Feeds, OnnxFile, Worker, workers
from strop.bench.fidelity import Fidelity, agreement, embed
from strop.bench.figures import RESULTS, Figure, Spread, console, environment, save, show

EAGER, BASELINE = "torch eager", "torch.onnx + ORT"
SHAPES: tuple[tuple[int, int], ...] = ((1, 16), (1, 128), (8, 128))
# Seconds one engine runs in one round.
ROUND_SECONDS = 0.2
SENTENCES = 400
# Speed against the baseline that the recipes are held to, by shape.
SPEED: dict[str, dict[str, float]] = {
    "cpu-fp32": {"1x128": 1.3, "8x128": 1.3},
    "cpu-int8": {"1x16": 4.0, "1x128": 3.0, "8x128": 3.0},
}
MAX_DIFFERENCE = {"cpu-fp32": 1e-4}
LEAST_COSINE = {"cpu-int8": 0.985}
MOST_SIZE = {"cpu-int8": 0.26}


@dataclass(frozen=True)
class Timing:
    """One engine at one shape.

    Attributes:
        milliseconds: over the rounds' medians.
        ratio: baseline's time over this engine's, round by round.
    """

    milliseconds: Spread
    ratio: Spread


@dataclass(frozen=True)
class Difference:
    """An engine's outputs against eager torch: largest absolute difference, mean row cosine."""

    max_abs: float
    cosine: float


def race(
    running: Mapping[str, Worker],
    feeds: Mapping[str, Feeds],
    rounds: int,
    baseline: str,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Timing]]:
    """Let the engines take turns at each shape in turn; who begins changes from round to round.

    Every shape comes up in every round: a slow minute of the machine falls on all of them alike.
    """
    names = list(running)
    counts = {s: {n: _count(running[n], f) for n in names} for s, f in feeds.items()}
    medians: dict[str, dict[str, list[float]]] = {s: {n: [] for n in names} for s in feeds}
    for turn in range(rounds):
        start = turn % len(names)
        for shape, inputs in feeds.items():
            for name in names[start:] + names[:start]:
                times = running[name].times(inputs, counts[shape][name])
                medians[shape][name].append(statistics.median(times))
            tick()
    return {
        shape: {name: _timing(of[name], of[baseline]) for name in names}
        for shape, of in medians.items()
    }


def _count(worker: Worker, feeds: Feeds) -> int:
    """How many runs fit into one round."""
    return max(3, min(200, int(ROUND_SECONDS / min(worker.times(feeds, 3)))))


def _timing(seconds: Sequence[float], baseline: Sequence[float]) -> Timing:
    ratios = [b / s for s, b in zip(seconds, baseline)]
    return Timing(Spread.of([1000 * s for s in seconds]), Spread.of(ratios))


def difference(got: Sequence[Array], want: Sequence[Array]) -> Difference:
    """Compare lists of outputs; cosines are of rows along the last axis."""
    worst = max(float(np.abs(g - w).max()) for g, w in zip(got, want))
    cosines = [_row_cosines(g, w) for g, w in zip(got, want)]
    return Difference(worst, float(np.concatenate(cosines).mean()))


def _row_cosines(a: Array, b: Array) -> Array:
    rows = [x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, b)]
    norms = [np.linalg.norm(r, axis=-1) for r in rows]
    result: Array = (rows[0] * rows[1]).sum(-1) / (norms[0] * norms[1])
    return result


def export_baseline(path: Path) -> None:
    """What MiniLM's user would ship without strop: ``torch.onnx.export`` with dynamic shapes."""
    import torch

    from strop.bench.minilm import encoder, tokenize
    from strop.bench.sentences import sentences

    # It warns of every torchvision operator that is not there.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    inputs = tokenize(sentences(8))
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder(), (), str(path), kwargs=inputs, dynamo=True, verbose=False,
            dynamic_shapes=dict.fromkeys(inputs, axes), external_data=False,
        )  # fmt: skip


def prepare(
    places: Mapping[str, Path], threads: int, folder: Path, say: Callable[[str], None]
) -> list[Engine]:
    """Build an artifact per recipe at its place, export the baseline, and name the engines."""
    from strop.bench.minilm import make
    from strop.compiler import build

    engines: list[Engine] = [Eager(EAGER, threads, "strop.bench.minilm:encoder")]
    say(f"exporting {BASELINE}")
    baseline = folder / "baseline.onnx"
    export_baseline(baseline)
    engines.append(OnnxFile(BASELINE, threads, baseline))
    for recipe, place in places.items():
        artifact = build(make(), place, recipe, progress=partial(_say_stage, say, recipe))
        engines.append(OnnxFile(f"strop {recipe}", threads, artifact.model_path))
    return engines


def fidelity(running: Mapping[str, Worker], count: int = SENTENCES) -> dict[str, Fidelity]:
    """Agreement of every engine with eager torch on real sentences."""
    from strop.bench.minilm import tokenize
    from strop.bench.sentences import sentences

    texts = sentences(count)
    batches = [
        {n: t.numpy() for n, t in tokenize(texts[i : i + 16]).items()}
        for i in range(0, len(texts), 16)
    ]
    found = {
        name: embed(partial(_first_output, worker), batches) for name, worker in running.items()
    }
    return {name: agreement(found[EAGER], e) for name, e in found.items() if name != EAGER}


def _progress() -> Progress:
    """A bar that is drawn once a second: drawing takes time from what is measured."""
    return Progress(console=console, refresh_per_second=1)


def _say_stage(say: Callable[[str], None], recipe: str, stage: str) -> None:
    say(f"{recipe}: {stage}")


def _first_output(worker: Worker, feeds: Feeds) -> Array:
    return worker.outputs(feeds)[0]


def duel(
    recipes: Sequence[str],
    rounds: int,
    threads: int,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    keep: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Everything measured, as plain values; artifacts are kept where ``keep`` says so."""
    from strop.bench.minilm import filled

    with tempfile.TemporaryDirectory() as folder, _progress() as progress:
        task = progress.add_task("preparing", total=None)
        places = {r: Path(folder) / r for r in recipes} | dict(keep or {})
        engines = prepare(
            places, threads, Path(folder), lambda what: progress.update(task, description=what)
        )
        progress.update(task, total=rounds * len(shapes))
        found: dict[str, Any] = {"timings": {}, "differences": {}}
        with workers(engines) as running:
            feeds = {f"{batch}x{seq}": filled(batch, seq) for batch, seq in shapes}
            progress.update(task, description="racing")
            times = race(running, feeds, rounds, BASELINE, lambda: progress.advance(task))
            for shape, timings in times.items():
                outputs = {name: w.outputs(feeds[shape]) for name, w in running.items()}
                found["timings"][shape] = {n: asdict(t) for n, t in timings.items()}
                found["differences"][shape] = {
                    n: asdict(difference(o, outputs[EAGER])) for n, o in outputs.items()
                }
            found["fidelity"] = {n: asdict(f) for n, f in fidelity(running).items()}
        found["bytes"] = {e.name: e.path.stat().st_size for e in engines if isinstance(e, OnnxFile)}
    return found | {"rounds": rounds, "session": "default"}


def judge(found: Mapping[str, Any], recipes: Sequence[str]) -> list[Figure]:
    """Hold what was measured to the figures."""
    figures = []
    for recipe in recipes:
        name = f"strop {recipe}"
        for shape, bound in SPEED.get(recipe, {}).items():
            if shape in found["timings"]:
                ratio = found["timings"][shape][name]["ratio"]["median"]
                figures.append(Figure(f"{recipe} {shape}, times faster", ratio, at_least=bound))
        if recipe in MAX_DIFFERENCE:
            worst = max(d[name]["max_abs"] for d in found["differences"].values())
            bound = MAX_DIFFERENCE[recipe]
            figures.append(Figure(f"{recipe}, max abs difference", worst, at_most=bound))
        if recipe in LEAST_COSINE:
            cosine = found["fidelity"][name]["cosine"]
            bound = LEAST_COSINE[recipe]
            figures.append(Figure(f"{recipe}, pooled cosine", cosine, at_least=bound))
        if recipe in MOST_SIZE:
            size = found["bytes"][name] / found["bytes"][BASELINE]
            figures.append(Figure(f"{recipe}, size over fp32", size, at_most=MOST_SIZE[recipe]))
    return figures


def print_tables(found: Mapping[str, Any]) -> None:
    """Latency per shape, then fidelity and size."""
    latency = Table("engine", *found["timings"], title="ms, median (quartiles); × baseline")
    for name in next(iter(found["timings"].values())):
        cells = []
        for timings in found["timings"].values():
            ms, ratio = (Spread(**timings[name][k]) for k in ("milliseconds", "ratio"))
            cells.append(f"{ms}  ×{ratio.median:.2f}")
        latency.add_row(name, *cells)
    console.print(latency)
    near = Table("engine", "max abs", "cosine", "pooled cosine", "least", "top-10 overlap", "MB")
    for name, fidelity in found["fidelity"].items():
        differences = [d[name] for d in found["differences"].values()]
        near.add_row(
            name,
            f"{max(d['max_abs'] for d in differences):.1e}",
            f"{min(d['cosine'] for d in differences):.5f}",
            f"{fidelity['cosine']:.5f}",
            f"{fidelity['least_cosine']:.5f}",
            f"{fidelity['overlap']:.3f}",
            f"{found['bytes'][name] / 1e6:.1f}",
        )
    console.print(near)


def main(
    recipe: Annotated[list[str] | None, typer.Option(help="A recipe; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds per shape.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Race MiniLM as strop builds it against what its user would otherwise ship."""
    recipes = recipe or list(SPEED)
    place = environment(min(threads, os.cpu_count() or threads))
    found = duel(recipes, rounds, threads)
    figures = judge(found, recipes)
    print_tables(found)
    show(figures, f"MiniLM-L6 against {BASELINE}")
    save("duel", place, figures, found, results)


if __name__ == "__main__":
    typer.run(main)
