"""Int8 MiniLM as ``cpu-int8`` builds it, against the int8 of others.

``python -m strop.bench.measures.quantized_minilm`` builds it, lets NNCF and ONNX Runtime quantize
the original on the same calibration sentences, times all of them on rows without padding, and
compares what they give for 400 sentences with the original. The standard form of the static int8
model, which OpenVINO runs, takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from strop.bench.harness.duel import prepared
from strop.bench.harness.listener import listening
from strop.bench.harness.setup import DuelSetup
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import DuelRecord, Plan, size_label
from strop.bench.suites.embeddings import agreement, embed, sentence_outputs, token_cosine
from strop.bench.suites.encoders import CALIBRATED, SOURCE, subject
from strop.compiler import build
from strop.compiler.frontend.source import load_model

RECIPE = "cpu-int8"
STANDARD = "cpu-int8-static in openvino"
OTHERS = ("openvino-nncf", "ort-dynamic", "ort-static")
# Cosine with the original: of last hidden states, and of pooled embeddings.
HIDDEN, POOLED = "hidden", "pooled"
Cosines = Mapping[str, Mapping[str, float]]
SIZES = tuple({"batch": b, "seq": s} for b, s in ((1, 16), (1, 128), (8, 128), (32, 64)))


def bound(sizes: str, other: str, bf16: bool) -> float:
    """How many times as fast as another the artifact is to be.

    Args:
        sizes: of the case.
        other: the name of the peer.
        bf16: whether the CPU has instructions for it, which OpenVINO uses in attention.
    """
    if other != "openvino-nncf":
        return 1.0
    if sizes == "batch=1 seq=16":
        return 1.4
    return 0.85 if bf16 and not sizes.startswith("batch=1 ") else 1.0


def figures(record: DuelRecord, cosines: Cosines, bf16: bool) -> Iterator[Figure]:
    """Speed over each of the others, and how much further from the original they are."""
    mine = subject(RECIPE)
    for other in (name for name in OTHERS if name in cosines):
        for case in record.cases:
            sizes = size_label(case.sizes)
            faster = median_speedup(case, mine, other)
            yield Figure(f"{sizes}, × {other}", faster, at_least=bound(sizes, other, bf16))
        for what in (HIDDEN, POOLED):
            gap = cosines[mine][what] - cosines[other][what]
            yield Figure(f"{what} cosine above that of {other}", gap, at_least=0)
    for what in (HIDDEN, POOLED):
        yield Figure(f"{what} cosine", cosines[mine][what])
    if "openvino-nncf" in cosines:
        yield from _standard_form(record, cosines)


def _standard_form(record: DuelRecord, cosines: Cosines) -> Iterator[Figure]:
    """OpenVINO on strop's file in standard operators, against NNCF's model."""
    for case in record.cases:
        faster = median_speedup(case, STANDARD, "openvino-nncf")
        sizes = size_label(case.sizes)
        yield Figure(f"{sizes}, standard form in OpenVINO, × openvino-nncf", faster, at_least=1)
    for what in (HIDDEN, POOLED):
        gap = cosines[STANDARD][what] - cosines["openvino-nncf"][what]
        yield Figure(f"{what} cosine of the standard form above openvino-nncf", gap, at_least=0)


def measure(plan: Plan) -> tuple[DuelRecord, Cosines]:
    """Build, time and compare."""
    with listening() as listener, TemporaryDirectory(prefix="strop-bench-") as folder:
        listener.stage(f"building {RECIPE}")
        artifact = build(load_model(CALIBRATED), Path(folder) / RECIPE, RECIPE)
        listener.stage("building the standard form")
        static = Path(folder) / "standard"
        standard = build(load_model(CALIBRATED), static, "cpu-int8-static", "onnx")
        artifacts = {subject(RECIPE): artifact, STANDARD: standard}
        openvino = frozenset({STANDARD})
        setup = DuelSetup(artifacts, SOURCE, OTHERS, SIZES, plan, openvino)
        with prepared(setup, listener) as session:
            record = session.run(listener)
            listener.stage("comparing sentences")
            found = sentence_outputs(session, SOURCE)
    original = embed(found.original, found.masks)
    return record, {
        name: {
            HIDDEN: token_cosine(found, name),
            POOLED: agreement(original, embed(hidden, found.masks)).cosine,
        }
        for name, hidden in found.engines.items()
    }


def main(
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    bouts: Annotated[int, typer.Option(min=1, help="How often engines start anew.")] = 5,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure, and hold the figures against their bounds."""
    place = environment(threads)
    record, cosines = measure(Plan(threads=[threads], bouts=bouts))
    made = list(figures(record, cosines, "avx512_bf16" in place["flags"]))
    measured = {"cosines": cosines, "record": record.model_dump()}
    show_and_save("quantized_minilm", "int8 MiniLM", place, made, measured, results)


if __name__ == "__main__":
    typer.run(main)
