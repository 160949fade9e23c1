"""Figures: what a benchmark claims, whether it was met, and where it was measured.

``python -m strop.bench.figures`` prints every figure recorded in ``bench/results``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from strop.compiler.files import write_whole

RESULTS = Path(__file__).parent / "results"
# Instruction sets that decide which kernels a CPU runs.
CPU_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
PACKAGES = (
    *("strop", "torch", "onnx", "onnx-ir", "onnxscript", "transformers", "numpy"),
    *("openvino", "nncf"),
)
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")

console = Console()


@dataclass(frozen=True)
class Figure:
    """One number, and the bound it is held to.

    Attributes:
        what: the figure in words, with its unit.
        value: what was measured.
        at_least: the lower bound, if there is one.
        at_most: the upper bound, if there is one.
    """

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def hit(self) -> bool:
        """Whether the value is within the bounds; NaN is within none."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def wanted(self) -> str:
        """The bound in words; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample, in the sample's unit."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(sample: Sequence[float]) -> Spread:
        """Median, first and third quartile; a sample of one is its own quartiles."""
        if len(sample) == 1:
            return Spread(sample[0], sample[0], sample[0])
        low, middle, high = statistics.quantiles(sample, n=4, method="inclusive")
        return Spread(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


def environment(threads: int | None = None) -> dict[str, Any]:
    """The machine and the versions a measurement was taken with; no name, no path."""
    cpu = cpu_info()
    return {
        "cpu": cpu["model"],
        "flags": [f for f in CPU_FLAGS if f in cpu["flags"]],
        "cores": os.cpu_count(),
        "threads": threads or os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "speed": machine_speed(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in (*PACKAGES, *RUNTIMES) if (found := _version(name))},
    }


def machine_speed() -> dict[str, float]:
    """What the machine gives at this moment: a shared one has slow hours that no load shows.

    Returns:
        "gemm_gflops": of a float32 product of [1024, 384] and [384, 1536]; "copy_gb_s": read and
        written by a copy of 50 MB. Both are medians of a few runs by numpy.
    """
    import numpy as np

    a, b = np.ones((1024, 384), np.float32), np.ones((384, 1536), np.float32)
    block = np.ones(50_000_000, np.uint8)
    product, copy = _seconds(lambda: a @ b), _seconds(block.copy)
    return {
        "gemm_gflops": round(2 * 1024 * 384 * 1536 / product / 1e9, 1),
        "copy_gb_s": round(2 * block.nbytes / copy / 1e9, 1),
    }


def _seconds(run: Callable[[], object], runs: int = 15) -> float:
    """The median of some runs, after one that does not count."""
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def machine(environment: Mapping[str, Any]) -> str:
    """One line on where something was measured."""
    flags = ", ".join(environment["flags"])
    versions = environment["versions"]
    runtime = versions.get("onnxruntime-gpu") or versions.get("onnxruntime")
    return (
        f"{environment['cpu']}, {environment['threads']} threads ({flags}); "
        f"torch {versions['torch']}, onnxruntime {runtime}"
    )


def cpu_info() -> dict[str, Any]:
    """``model`` and ``flags`` of the first CPU."""
    from strop.compiler.lower.onnx.tune import cpu_model

    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return {"model": cpu_model(), "flags": flags}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(
    name: str, environment: dict[str, Any], figures: Sequence[Figure], measured: Any, folder: Path
) -> Path:
    """Write one benchmark's results as JSON; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    values = {
        "name": name,
        "environment": environment,
        "figures": [asdict(f) | {"hit": f.hit} for f in figures],
        "measured": measured,
    }
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
    return path


def figures_of(saved: Mapping[str, Any]) -> list[Figure]:
    """The figures of what ``save`` wrote."""
    return [Figure(f["what"], f["value"], f["at_least"], f["at_most"]) for f in saved["figures"]]


def show(figures: Sequence[Figure], title: str) -> None:
    """Print figures against their bounds."""
    table = Table("figure", "value", "wanted", "", title=title, title_justify="left")
    for figure in figures:
        verdict = "[green]hit[/green]" if figure.hit else "[bold red]MISS[/bold red]"
        bound = figure.wanted
        table.add_row(figure.what, f"{figure.value:.4g}", bound, verdict if bound else "")
    console.print(table)


def results() -> list[dict[str, Any]]:
    """Every benchmark on record that has figures, in the order of the file names."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [r for r in found if isinstance(r, dict) and r.get("figures")]


def main() -> None:
    """Print every figure on record."""
    for saved in results():
        show(figures_of(saved), f"{saved['name']}: {saved['environment']['cpu']}")


if __name__ == "__main__":
    main()
