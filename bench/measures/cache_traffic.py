"""What a longer text costs each new token: measured, beside what reading the caches once takes.

``python -m strop.bench.measures.cache_traffic`` builds SmolLM2-135M with weights of 4 bits, once
with caches in float32 and once in int8 (``quantize-cache``), and lets both write behind texts of
128 to 4,096 tokens, each in a process of its own, in interleaved rounds. The model: bytes of the
caches over the bandwidth at which this machine sums a large array.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from strop.bench.harness.decoding import Loop
from strop.bench.measures.generation import CORES, Texts, record, timed
from strop.bench.models import smollm
from strop.bench.processes.launch import strop_command
from strop.bench.processes.memory import watch
from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.artifact.feeds import NUMPY_DTYPES
from strop.compiler.artifact.folder import read_artifact

FLOAT, INT8 = "float32 caches", "int8 caches"
MORE: Mapping[str, list[str]] = {FLOAT: [], INT8: ["--pass", "quantize-cache"]}
CONTEXTS = (128, 1024, 4096)
# Numbers of an array that no cache of a processor holds: 400 MB.
LARGE = 100_000_000


def made(folder: Path) -> None:
    """Build both.

    Raises:
        SystemExit: a build failed; what it says went to the terminal.
    """
    source = folder / "checkpoint"
    smollm.save(source)
    for name, more in MORE.items():
        given = [f"hf:{source}#text-generation", "-o", str(folder / name), *more]
        with console.status(f"building with {name}"):
            built = watch(strop_command("build", *given, "--recipe", "cpu-llm-int4"))
        if built.status:
            raise SystemExit(f"the build with {name} ended with exit status {built.status}")


def bytes_per_place(folder: Path) -> int:
    """Of all caches of a decoder, for each token of a text."""
    manifest = read_artifact(folder).manifest
    specs = {spec["name"]: spec for spec in manifest["contract"]["inputs"]}
    caches = [specs[name] for name in manifest["generation"]["caches"]]
    return sum(
        int(s["shape"][1]) * int(s["shape"][3]) * NUMPY_DTYPES[s["dtype"]].itemsize for s in caches
    )


def bandwidth() -> float:
    """Bytes a second at which a large array is summed: the best of several runs."""
    large = torch.ones(LARGE)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        large.sum()
        seconds.append(time.perf_counter() - start)
    return large.nbytes / min(seconds)


def per_token(texts: Texts, name: str, length: int) -> float:
    """Milliseconds of a new token behind so many: the median of the medians of texts."""
    return statistics.median(statistics.median(text.others) for text in texts[name, length])


def figures(texts: Texts, places: Mapping[str, int], speed: float) -> Iterator[Figure]:
    """What is claimed: a longer text costs no more than reading its caches once."""
    first, *others = CONTEXTS
    for name, size in places.items():
        for length in others:
            grown = per_token(texts, name, length) - per_token(texts, name, first)
            modelled = 1000 * size * (length - first) / speed
            what = f"{name}: ms more per token behind {length:,} than behind {first} (modelled)"
            yield Figure(what, grown, at_most=modelled)
    longest = others[-1]
    share = per_token(texts, FLOAT, longest) / per_token(texts, INT8, longest)
    yield Figure(f"int8 caches behind {longest:,}, × float32 caches", share, at_least=1)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each writes.")] = 5,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build, write, and compare with the model."""
    with TemporaryDirectory(prefix="strop-bench-") as name:
        folder = Path(name)
        made(folder)
        places = {name: bytes_per_place(folder / name) for name in MORE}
        engines = [Loop(name, CORES, folder / name) for name in MORE]
        texts, memory = timed(engines, rounds, CONTEXTS)
        speed = isolated(bandwidth, timeout=120)
    found = list(figures(texts, places, speed))
    measured: dict[str, Any] = {
        "bytes_per_place": places,
        "bytes_per_second": speed,
        "peak_bytes": memory,
        "texts": record(texts),
    }
    show_and_save(
        "cache_traffic", "SmolLM2-135M, long texts", environment(), found, measured, results
    )


if __name__ == "__main__":
    typer.run(main)
