"""Static int8 of convolutional networks, against ONNX Runtime's own and OpenVINO with NNCF.

``python -m strop.bench.measures.quantized_vision [--network efficientnet-lite0]``. Every engine
calibrates on the same crops of photographs, and runs in a process of its own, in turns. How close
they are to the original is read on other crops. EfficientNet-Lite0 has its ImageNet weights; the
other two have random ones, and batch norms with the statistics of photographs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from strop.bench.harness.duel import DuelSession, prepared
from strop.bench.harness.engines import Engine
from strop.bench.harness.listener import Listener, listening
from strop.bench.harness.setup import DuelSetup
from strop.bench.models.photographs import crops
from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import DuelRecord, Plan
from strop.compiler.artifact.folder import Artifact

NETWORKS = {
    "efficientnet-lite0": source_of("photo_classifiers", "efficientnet_lite0"),
    "resnet-50": source_of("photo_classifiers", "resnet50"),
    "mobilenet-v2": source_of("photo_classifiers", "mobilenet_v2"),
}
SIZES = ({"batch": 1}, {"batch": 8})
RECIPE = "cpu-int8-static"
OWN, STANDARD = "strop", "strop in openvino"
ORT, NNCF = "ort-static", "openvino-nncf"
IMAGES, ROWS, SEED = 256, 32, 2


@dataclass(frozen=True)
class Closeness:
    """Logits against those of the original, on crops that nobody calibrated on.

    Attributes:
        cosine: mean over crops.
        agreement: the share of crops with the same first class.
    """

    cosine: float
    agreement: float


def main(
    network: Annotated[list[str] | None, typer.Option(help="One of the networks; all.")] = None,
    threads: Annotated[int, typer.Option(help="Of every engine.")] = 2,
    bouts: Annotated[int, typer.Option(help="How often all engines start anew.")] = 3,
    rounds: Annotated[int, typer.Option(help="In each bout.")] = 5,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build each network in both forms, and compare speed and closeness."""
    plan = Plan(threads=[threads], bouts=bouts, rounds=rounds)
    figures: list[Figure] = []
    measured: dict[str, Any] = {}
    for name in network or NETWORKS:
        with listening() as listener:
            record, close = _measure(NETWORKS[name], plan, listener)
        figures += _figures(name, record, close)
        closeness = {engine: asdict(found) for engine, found in close.items()}
        measured[name] = {"duel": record.model_dump(), "closeness": closeness}
    title = f"{RECIPE}, {threads} threads, batches of 1 and 8"
    show_and_save("quantized_vision", title, environment(), figures, measured, results)


def _measure(
    source: str, plan: Plan, listener: Listener
) -> tuple[DuelRecord, dict[str, Closeness]]:
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model

    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        artifacts: dict[str, Artifact] = {}
        for name, target in ((OWN, "cpu"), (STANDARD, "onnx")):
            listener.stage(f"building for {target}")
            out = Path(folder, target)
            artifacts[name] = build(load_model(source), out, RECIPE, target)
        against = ("ort", ORT, "openvino", NNCF)
        openvino = frozenset({STANDARD})
        setup = DuelSetup(artifacts, source, against, SIZES, plan, openvino)
        with prepared(setup, listener) as session:
            record = session.run(listener)
            listener.stage("comparing logits")
            return record, _closeness(session, load_model(source).module)


def _closeness(session: DuelSession, module: torch.nn.Module) -> dict[str, Closeness]:
    images = crops(IMAGES, SEED).split(ROWS)
    with torch.no_grad():
        want = torch.cat([_logits(module(batch)) for batch in images])
    return {engine.name: _close(engine, images, want) for engine in session.engines(1)}


def _logits(outputs: Any) -> Tensor:
    made: Tensor = outputs if isinstance(outputs, Tensor) else outputs.logits
    return made


def _close(engine: Engine, images: Sequence[Tensor], want: Tensor) -> Closeness:
    runner = engine.load()
    rows = [runner.run({"pixel_values": batch.numpy()})[0] for batch in images]
    got = torch.cat([torch.from_numpy(row).float() for row in rows])
    cosine = torch.cosine_similarity(got, want, dim=1).mean()
    return Closeness(float(cosine), float((got.argmax(1) == want.argmax(1)).float().mean()))


def _figures(name: str, record: DuelRecord, close: Mapping[str, Closeness]) -> list[Figure]:
    """Those that are required of each network."""
    own, standard, nncf = close[OWN], close[STANDARD], close[NNCF]
    return [
        Figure(f"{name}, times {ORT}", _faster(record, OWN, ORT), at_least=1.0),
        Figure(f"{name}, times {NNCF}", _faster(record, OWN, NNCF), at_least=0.9),
        Figure(f"{name}, cosine of logits", own.cosine, at_least=0.999),
        Figure(f"{name}, share of crops with the same first class", own.agreement, at_least=0.97),
        Figure(f"{name}, cosine above that of {ORT}", own.cosine - close[ORT].cosine, at_least=0),
        Figure(
            f"{name} in standard form in OpenVINO, times {NNCF}",
            _faster(record, STANDARD, NNCF),
            at_least=1.0,
        ),
        Figure(
            f"{name} in standard form in OpenVINO, cosine above that of {NNCF}",
            standard.cosine - nncf.cosine,
            at_least=0,
        ),
    ]


def _faster(record: DuelRecord, engine: str, than: str) -> float:
    """How many times faster, as the geometric mean of the cases."""
    times = [median_speedup(case, engine, than) for case in record.cases]
    return math.prod(times) ** (1 / len(times))


if __name__ == "__main__":
    typer.run(main)
