"""SmolLM2-135M that writes token by token: strop's int4 and onnxruntime-genai's own.

``python -m strop.bench.measures.generation`` builds both with the builders' own commands, lets
each write with its own loop in a process of its own, in interleaved rounds, and compares time to
the first token, time per token, files, builds and perplexity. Eager torch and a float32 artifact
take part, and onnxruntime-genai runs strop's folder as it is.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from strop.bench.harness import perplexities
from strop.bench.harness.decoding import (
    CACHED,
    NEW,
    PROMPT,
    Decoding,
    Genai,
    Loop,
    Transformers,
    written,
)
from strop.bench.harness.workers import workers
from strop.bench.models import smollm
from strop.bench.processes.launch import strop_command
from strop.bench.processes.memory import Watched, watch
from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.util.numerics import Array

INT4, FLOAT, PEER, EAGER, OURS = "strop", "strop fp32", "genai", "eager", "genai on strop's folder"
RECIPES = {INT4: "cpu-llm-int4", FLOAT: "cpu-fp32"}
CONTEXTS = (128, 1024)
CORES, TIMEOUT = os.cpu_count() or 1, 900.0
# Tokens that must be equal, and rows of 128 held-out tokens that perplexity is taken of.
SAME, ROWS = 200, 64


@dataclass(frozen=True)
class Text:
    """What the tokens of one engine took in one round, in milliseconds.

    Attributes:
        first: from the prompt to the first token.
        others: from each token to the next.
    """

    first: float
    others: Sequence[float]


Texts = Mapping[tuple[str, int], Sequence[Text]]


def prompt_of(length: int) -> Array:
    """Held-out text of so many tokens: [1, length] int64."""
    rows = smollm.rows("test", -(-length // smollm.LENGTH))
    return rows.reshape(1, -1)[:, :length].numpy()


def made(folder: Path, recipes: Mapping[str, str]) -> dict[str, Watched]:
    """Build everything; how long each took, and its memory.

    Raises:
        SystemExit: a builder failed; what it says went to the terminal.
    """
    source = folder / "checkpoint"
    with console.status("the checkpoint"):
        smollm.save(source)
    commands = {
        name: strop_command(
            "build", f"hf:{source}#text-generation", "-o", str(folder / name), "--recipe", recipe
        )
        for name, recipe in recipes.items()
    }
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    commands[PEER] = [*builder, *f"-i {source} -o {folder / PEER} -p int4 -e cpu".split()]
    built = {}
    for name, command in commands.items():
        with console.status(f"building {name}"):
            built[name] = watch(command)
        if built[name].status:
            raise SystemExit(f"the build of {name} ended with exit status {built[name].status}")
    return built


def engines(folder: Path, in_float: bool) -> list[Decoding]:
    """Everything that writes."""
    int4 = [Loop(INT4, CORES, folder / INT4), Genai(PEER, CORES, folder / PEER)]
    if not in_float:
        return int4
    original = Transformers(EAGER, CORES, folder / "checkpoint")
    return [*int4, Loop(FLOAT, CORES, folder / FLOAT), original]


def timed(
    taking_part: Sequence[Decoding], rounds: int, contexts: Sequence[int] = CONTEXTS
) -> tuple[Texts, dict[str, int]]:
    """Times of every engine after every prompt, one after the other; and its peak memory."""
    feeds = {f"{kind} {n}": {kind: prompt_of(n)} for n in contexts for kind in (PROMPT, CACHED)}
    found: dict[tuple[str, int], list[Text]] = {}
    with workers(taking_part, feeds, TIMEOUT) as (running, refused):
        if refused:
            raise SystemExit("; ".join(f"{name} {reason}" for name, reason in refused.items()))
        for number in range(rounds + 1):  # the first one warms up
            with console.status(f"round {number} of {rounds}"):
                for length in contexts:
                    for name, worker in running.items():
                        (first,) = worker.times(f"{PROMPT} {length}", 1)
                        others = worker.times(f"{CACHED} {length}", NEW)
                        if number:
                            text = Text(1000 * first, [1000 * t for t in others])
                            found.setdefault((name, length), []).append(text)
        return found, {name: worker.peak_memory() for name, worker in running.items()}


def faster(texts: Texts, mine: str, other: str, length: int) -> tuple[float, float]:
    """How many times as fast: to the first token, and from token to token; medians of pairs."""
    pairs = list(zip(texts[mine, length], texts[other, length]))
    first = statistics.median(b.first / a.first for a, b in pairs)
    later = statistics.median(
        statistics.median(b.others) / statistics.median(a.others) for a, b in pairs
    )
    return first, later


def speeds(texts: Texts) -> Iterator[Figure]:
    """What is claimed of time."""
    for length in CONTEXTS:
        first, later = faster(texts, INT4, PEER, length)
        yield Figure(f"int4, time per token after {length}, × {PEER}", later, at_least=1.2)
        yield Figure(f"int4, time to the first token after {length}, × {PEER}", first, at_least=3)
        if (FLOAT, length) in texts:
            eager = faster(texts, FLOAT, EAGER, length)[1]
            yield Figure(f"fp32, time per token after {length}, × {EAGER}", eager, at_least=2)


def size(folder: Path) -> int:
    """Bytes of the ONNX files and their weights."""
    return sum(file.stat().st_size for file in folder.glob("*.onnx*"))


def quality(folder: Path) -> dict[str, float]:
    """Perplexity on held-out text."""
    ids = smollm.rows("test", ROWS).numpy()
    asked = {
        EAGER: (perplexities.of_module, folder / "checkpoint"),
        INT4: (perplexities.of_artifact, folder / INT4),
        PEER: (perplexities.of_genai, folder / PEER),
    }
    found = {}
    for name, (function, path) in asked.items():
        with console.status(f"perplexity of {name}"):
            found[name] = isolated(function, path, ids, timeout=TIMEOUT)
    return found


def equal(folder: Path, in_float: bool) -> Iterator[Figure]:
    """How many of the first tokens are the same."""
    prompt, int4 = prompt_of(CONTEXTS[0]), folder / INT4
    both = Genai(OURS, CORES, int4), Loop(INT4, CORES, int4)
    pairs: dict[str, tuple[Decoding, Decoding]] = {f"{OURS} and strop's loop, int4": both}
    if in_float:
        original = Transformers(EAGER, CORES, folder / "checkpoint")
        pairs[f"{EAGER} and strop, fp32"] = original, Loop(FLOAT, CORES, folder / FLOAT)
    for what, pair in pairs.items():
        a, b = (isolated(written, one, prompt, SAME, timeout=TIMEOUT) for one in pair)
        same = int(np.logical_and.accumulate(a[0] == b[0]).sum())
        yield Figure(f"greedy tokens that are equal, {what}", same, at_least=SAME)


def figures(
    built: Mapping[str, Watched], texts: Texts, perplexity: Mapping[str, float], folder: Path
) -> Iterator[Figure]:
    """Everything that is claimed."""
    yield from speeds(texts)
    yield from equal(folder, FLOAT in built)
    yield Figure("int4, files, × theirs", size(folder / INT4) / size(folder / PEER), at_most=1)
    for name, value in perplexity.items():
        bound = perplexity[PEER] if name == INT4 else None
        yield Figure(f"perplexity, {name}", value, at_most=bound)
    mine, peer = built[INT4], built[PEER]
    yield Figure("int4, seconds of the build, × theirs", mine.seconds / peer.seconds, at_most=1)
    yield Figure("int4, memory of the build, × theirs", mine.peak_gb / peer.peak_gb, at_most=1)


def record(texts: Texts) -> list[dict[str, Any]]:
    """Every text that was timed."""
    return [
        {"engine": name, "prompt": length, "texts": [asdict(text) for text in of]}
        for (name, length), of in texts.items()
    ]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each engine writes.")] = 7,
    in_float: Annotated[bool, typer.Option("--float/--no-float", help="Eager torch, too.")] = True,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build, write, and compare."""
    with TemporaryDirectory(prefix="strop-bench-") as name:
        folder = Path(name)
        recipes = RECIPES if in_float else {INT4: RECIPES[INT4]}
        built = made(folder, recipes)
        texts, memory = timed(engines(folder, in_float), rounds)
        perplexity = quality(folder)
        found = list(figures(built, texts, perplexity, folder))
    measured = {
        "builds": {name: one.record() for name, one in built.items()},
        "peak_bytes": memory,
        "perplexity": perplexity,
        "texts": record(texts),
    }
    show_and_save("generation", "SmolLM2-135M", environment(), found, measured, results)


if __name__ == "__main__":
    typer.run(main)
