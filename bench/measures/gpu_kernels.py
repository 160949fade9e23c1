"""Strop's kernels on a GPU: milliseconds, share of what the card can do, and torch beside them.

``python -m strop.bench.measures.gpu_kernels`` needs a CUDA device. Bounds are measured first: the
bytes a second of a large copy, and the operations a second of a large product in each dtype, by
cuBLAS. Times are medians with a cold cache; peers are torch as it is and ``torch.compile``.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer

from strop.bench.harness.gpu_clock import gpu_milliseconds
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.suites.gpu_kernels import Case, cases
from strop.compiler.util.errors import UsageError


def _bounds() -> dict[str, float]:
    """What the card reaches: bytes a millisecond of a copy, operations a millisecond by dtype."""
    block = torch.empty(2**28, device="cuda")
    copied = torch.empty_like(block)
    n = 8192
    half = torch.randn(n, n, device="cuda", dtype=torch.float16)
    numbers = torch.randint(-127, 128, (n, n), device="cuda", dtype=torch.int8)
    found = {
        "bytes": 2 * block.nbytes / gpu_milliseconds(lambda: torch.neg(block, out=copied)),
        "float16": 2 * n**3 / gpu_milliseconds(lambda: half @ half.t()),
        "int8": 2 * n**3 / gpu_milliseconds(lambda: torch._int_mm(numbers, numbers.t())),
    }
    if torch.cuda.get_device_capability() >= (8, 9):
        eight, one = half.to(torch.float8_e4m3fn), torch.ones((), device="cuda")
        found["fp8"] = (
            2
            * n**3
            / gpu_milliseconds(
                lambda: torch._scaled_mm(eight, eight.t(), one, one, out_dtype=torch.float16)
            )
        )
    return found


def _measure(case: Case, bounds: dict[str, float]) -> dict[str, float]:
    compiled = torch.compile(case.torch, dynamic=False)
    took = gpu_milliseconds(case.run)
    cost = case.cost()
    bound = max(cost.bytes / bounds["bytes"], cost.operations / bounds[case.rate])
    return {
        "milliseconds": took,
        "share of the bound": bound / took,
        "torch": gpu_milliseconds(case.torch),
        "torch.compile": gpu_milliseconds(compiled),
    }


def _figures(measured: dict[str, dict[str, float]]) -> list[Figure]:
    made = []
    for name, found in measured.items():
        made.append(Figure(f"{name}: ms", found["milliseconds"]))
        made.append(Figure(f"{name}: share of the bound", found["share of the bound"]))
        for peer in ("torch", "torch.compile"):
            times = found[peer] / found["milliseconds"]
            made.append(Figure(f"{name}: times as fast as {peer}", times))
    return made


def main(
    only: Annotated[str, typer.Option(help="Cases whose name holds this text.")] = "",
    results: ResultsFolder = RESULTS,
) -> None:
    """Time every case."""
    if not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here")
    bounds = _bounds()
    chosen = (case for case in cases() if only in case.name)
    measured = {case.name: _measure(case, bounds) for case in chosen}
    place: dict[str, Any] = {**environment(), "gpu": torch.cuda.get_device_name()}
    title = f"kernels on {place['gpu']}"
    found = {"bounds per millisecond": bounds, "cases": measured}
    show_and_save("gpu_kernels", title, place, _figures(measured), found, results)


if __name__ == "__main__":
    typer.run(main)
