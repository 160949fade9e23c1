"""What leaving padding out is worth: MiniLM in int8 on batches of random texts.

``python -m strop.bench.measures.ragged`` builds MiniLM as ``cpu-int8`` and as ``cpu-int8-ragged``
and lets NNCF quantize the original. Each runs in a process of its own, in interleaved rounds, on
the same padded batches, and on rows without padding, where nothing can be gained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from strop.bench.harness.duel import DuelSession, prepared
from strop.bench.harness.engines import Eager, Engine
from strop.bench.harness.listener import Listener, listening
from strop.bench.harness.setup import DuelSetup
from strop.bench.harness.subject import Feeds
from strop.bench.harness.workers import workers
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.record import Plan
from strop.bench.suites.embeddings import REFERENCE, SentenceOutputs, token_cosine
from strop.bench.suites.encoders import CALIBRATED, SOURCE, subject
from strop.compiler import build
from strop.compiler.frontend.source import load_model

PLAIN, RAGGED, OTHER = subject("cpu-int8"), subject("cpu-int8-ragged"), "openvino-nncf"
RECIPES = {PLAIN: "cpu-int8", RAGGED: "cpu-int8-ragged"}
ROWS, DRAWN = (8, 32), 3
WHOLE, SHORT = "8×128", "1×16"
Times = Mapping[str, Mapping[str, list[float]]]
"""Seconds of every run, by case and engine; the runs of one round stand at one place."""


def random_texts(rows: int, seed: int) -> Feeds:
    """Texts of one and more sentences: in a batch of them, about 60 % is padding."""
    from strop.bench.models.minilm import tokenize
    from strop.bench.models.text import prose

    draw, known = np.random.default_rng([rows, seed]), prose("test")
    texts = []
    for _ in range(rows):
        count = draw.geometric(0.62) + (3 if draw.random() < 0.12 else 0)
        texts.append(" ".join(draw.choice(known, min(count, 8))))
    return {name: tensor.numpy() for name, tensor in tokenize(texts).items()}


def padded_batches() -> dict[str, Feeds]:
    """Batches of random texts, by name."""
    return {f"{rows} texts, {i}": random_texts(rows, i) for rows in ROWS for i in range(DRAWN)}


def whole_batches() -> dict[str, Feeds]:
    """Rows without padding, by name."""
    model = load_model(SOURCE)
    assert isinstance(model.example_inputs, Mapping)
    whole = {name: tensor.numpy() for name, tensor in model.example_inputs.items()}
    return {WHOLE: whole, SHORT: {name: array[:1, :16] for name, array in whole.items()}}


def alone(batches: Mapping[str, Feeds]) -> dict[str, Feeds]:
    """Each text of the smaller batches by itself, without padding."""
    return {
        f"{name}, text {row}": {n: a[row : row + 1, : int(mask.sum())] for n, a in feeds.items()}
        for name, feeds in batches.items()
        if name.startswith(f"{ROWS[0]} ")
        for row, mask in enumerate(feeds["attention_mask"])
    }


def timed(
    session: DuelSession, cases: Mapping[str, Feeds], plan: Plan, listener: Listener
) -> Times:
    """Run every case by every engine in turns; engines are started anew for every bout."""
    engines = session.engines(plan.threads[0])
    times = {case: {engine.name: list[float]() for engine in engines} for case in cases}
    for bout in range(plan.bouts):
        listener.stage("timing")
        with workers(_turned(engines, bout), cases, plan.timeout) as (running, failed):
            assert not failed, failed
            for turn in range(plan.rounds):
                for case, found in times.items():
                    for name, worker in running.items():
                        found[name].append(median(worker.times(case, 3)))
                listener.share((bout * plan.rounds + turn + 1) / (plan.bouts * plan.rounds))
    return times


def _turned(engines: Sequence[Engine], by: int) -> list[Engine]:
    place = by % len(engines)
    return [*engines[place:], *engines[:place]]


def cosines(session: DuelSession, cases: Mapping[str, Feeds], plan: Plan) -> dict[str, float]:
    """Mean cosine of last hidden states with the original's at real positions, by engine."""
    threads = plan.threads[0]
    engines = [Eager(REFERENCE, threads, SOURCE), *session.engines(threads)]
    with workers(engines, cases, plan.timeout) as (running, failed):
        assert not failed, failed
        hidden = {n: [w.outputs(case)[0] for case in cases] for n, w in running.items()}
    masks = [feeds["attention_mask"] for feeds in cases.values()]
    found = SentenceOutputs(masks, hidden.pop(REFERENCE), hidden)
    return {name: token_cosine(found, name) for name in found.engines}


def faster(times: Times, case: str, mine: str, other: str) -> float:
    """How many times as fast one engine is as another: the median over rounds, of all batches."""
    found = [t for name, t in times.items() if name.startswith(case)]
    return median(b / a for t in found for a, b in zip(t[mine], t[other], strict=True))


def figures(
    times: Times,
    shares: Mapping[int, float],
    padded: Mapping[str, float],
    whole: Mapping[str, float],
) -> Iterator[Figure]:
    """What is claimed."""
    for rows in ROWS:
        case = f"{rows} texts"
        told = f"{case}, {1 - shares[rows]:.0%} padding"
        yield Figure(f"{told}, × {OTHER}", faster(times, case, RAGGED, OTHER), at_least=1.5)
        yield Figure(f"{told}, × {PLAIN}", faster(times, case, RAGGED, PLAIN))
    for case in (WHOLE, SHORT):
        cost = 1 / faster(times, case, RAGGED, PLAIN)
        yield Figure(f"{case} without padding, time over {PLAIN}", cost, at_most=1.03)
    yield Figure("cosine at real positions", padded[RAGGED])
    yield Figure(f"cosine of {OTHER} there", padded[OTHER])
    yield Figure(f"cosine above {PLAIN}, padded", padded[RAGGED] - padded[PLAIN], at_least=0)
    # Scales of int8 are those of a batch or of one text: that is all the difference.
    gap = padded[RAGGED] - whole[PLAIN]
    yield Figure(f"cosine above {PLAIN}, each text by itself", gap, at_least=-0.001)


def measure(plan: Plan) -> tuple[Times, dict[str, float], dict[str, float]]:
    """Build, time and compare: times, cosines on padded batches, and of each text by itself."""
    padded = padded_batches()
    with listening() as listener, TemporaryDirectory(prefix="strop-bench-") as folder:
        artifacts = {}
        for name, recipe in RECIPES.items():
            listener.stage(f"building {recipe}")
            artifacts[name] = build(load_model(CALIBRATED), Path(folder) / recipe, recipe)
        setup = DuelSetup(artifacts, SOURCE, (OTHER,), (), plan)
        with prepared(setup, listener) as session:
            times = timed(session, padded | whole_batches(), plan, listener)
            return times, cosines(session, padded, plan), cosines(session, alone(padded), plan)


def main(
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    bouts: Annotated[int, typer.Option(min=1, help="How often engines start anew.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in a bout.")] = 5,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure, and hold the figures against their bounds."""
    place = environment(threads)
    times, padded, whole = measure(Plan(threads=[threads], bouts=bouts, rounds=rounds))
    shares = {
        rows: float(np.mean([random_texts(rows, i)["attention_mask"].mean() for i in range(DRAWN)]))
        for rows in ROWS
    }
    made = list(figures(times, shares, padded, whole))
    measured = {"seconds": times, "real": shares, "padded": padded, "alone": whole}
    show_and_save("ragged", "ragged batches of int8 MiniLM", place, made, measured, results)


if __name__ == "__main__":
    typer.run(main)
