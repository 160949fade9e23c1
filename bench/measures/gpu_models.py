"""Whole models in strop's kernels on a GPU, against torch in float16 on the same card.

``python -m strop.bench.measures.gpu_models`` needs a CUDA device. It builds two layers of
Llama-2-7B at half its width, and of BERT-large, by each recipe for Triton, and times them beside
torch as it is and ``torch.compile`` with CUDA graphs. How far they are from the original in float32
is compared with how far torch's own float16 is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.util.errors import UsageError

RECIPES = ("triton-fp16", "triton-w8a8", "triton-w4a16")
MODELS = {name: source_of("gpu_blocks", name) for name in ("llama", "bert")}
SIZES = ((1, 16), (1, 512), (8, 512))
_RUNS, _WARM_UP = 100, 10
EAGER, COMPILED = "torch", "torch.compile"
Run = Callable[[Mapping[str, Tensor]], Tensor]


def _inputs(batch: int, seq: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(batch + seq)
    ids = torch.randint(0, 1024, (batch, seq), generator=generator).cuda()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _built(source: str, recipe: str, folder: Path) -> Run:
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model
    from strop.compiler.targets.target import get_target
    from strop.compiler.targets.triton.cuda import open_on_cuda

    major, minor = torch.cuda.get_device_capability()
    target = get_target(f"triton:sm{major}{minor}")
    artifact = build(load_model(source), folder / recipe, recipe, target.name, instruments="off")
    session = open_on_cuda(artifact.path)
    return lambda inputs: session.run_tensors([inputs[name] for name in session.inputs])[0]


def _milliseconds(engine: Run, given: Mapping[str, Tensor]) -> float:
    """As a caller sees it: from the call until the result is there, the median of many."""
    taken = []
    for _ in range(_WARM_UP + _RUNS):
        begin = time.perf_counter()
        engine(given)
        torch.cuda.synchronize()
        taken.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(taken[_WARM_UP:])


def _peers(module: torch.nn.Module) -> dict[str, Run]:
    half = module.half().cuda()
    fast = torch.compile(half, mode="reduce-overhead", dynamic=False)
    return {
        EAGER: lambda inputs: half(**inputs).last_hidden_state,
        COMPILED: lambda inputs: fast(**inputs).last_hidden_state,
    }


def _cosine(found: Tensor, wanted: Tensor) -> float:
    pair = found.float().cpu().flatten(0, -2), wanted.float().cpu().flatten(0, -2)
    return float(torch.cosine_similarity(*pair).mean())


@torch.no_grad()
def _measure(source: str, recipes: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds and cosine by engine and size."""
    from strop.compiler.frontend.source import load_model

    with TemporaryDirectory(prefix="strop-bench-") as folder:
        engines = {recipe: _built(source, recipe, Path(folder)) for recipe in recipes}
    original = load_model(source).module.cuda()
    cases = {f"batch={b} seq={s}": _inputs(b, s) for b, s in SIZES}
    wanted = {size: original(**given).last_hidden_state.cpu() for size, given in cases.items()}
    engines |= _peers(original)
    return {
        name: {
            size: {
                "ms": _milliseconds(engine, given),
                "cosine": _cosine(engine(given), wanted[size]),
            }
            for size, given in cases.items()
        }
        for name, engine in engines.items()
    }


def _figures(model: str, measured: Mapping[str, Any], recipes: Sequence[str]) -> list[Figure]:
    made = []
    for recipe in recipes:
        for size, found in measured[recipe].items():
            where = f"{model} {recipe}, {size}"
            made.append(Figure(f"{where}: ms", found["ms"]))
            made += [
                Figure(f"{where}: × {peer}", measured[peer][size]["ms"] / found["ms"])
                for peer in (EAGER, COMPILED)
            ]
            made.append(Figure(f"{where}: cosine", found["cosine"]))
    return made


def main(
    model: Annotated[list[str] | None, typer.Option(help="One of the models; all.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="One of the recipes; all.")] = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build, time and compare."""
    if not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here")
    recipes = recipe or RECIPES
    figures, measured = [], {}
    for name in model or MODELS:
        measured[name] = _measure(MODELS[name], recipes)
        figures += _figures(name, measured[name], recipes)
    place = {**environment(), "gpu": torch.cuda.get_device_name()}
    title = f"whole models on {place['gpu']}"
    show_and_save("gpu_models", title, place, figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
