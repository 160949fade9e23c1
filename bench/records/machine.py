"""The machine a measurement was taken on: which CPU, how fast just then, which versions."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Instruction sets that decide which kernels a CPU runs.
CPU_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
PACKAGES = (
    *("strop", "torch", "onnx", "onnx-ir", "onnxscript", "transformers", "numpy"),
    *("openvino", "nncf", "triton"),
)
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")


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
    """How fast the machine is at this moment, which its name does not say.

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
