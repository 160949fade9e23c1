"""Time and memory of builds whose largest sizes are too many to check.

``python -m strop.bench.measures.check_costs``; each build runs through the command line.
"""

from __future__ import annotations

import typer

from strop.bench.measures.builds import WatchedBuild, watched_build, weights_gb
from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

ENCODER, DECODER = source_of("minilm", "make_wide"), source_of("llama", "wide")
# Peak memory that is allowed: this share of the weights, and so many GB.
ALLOWED_RATIO, ALLOWED_GB = 1.3, 2.0


def judge(encoder: WatchedBuild, decoder: WatchedBuild, weights: float) -> list[Figure]:
    """The figures of both builds; ``weights`` is the size of the decoder's in GB."""
    stages = sum(encoder.stage_seconds.values())
    memory, allowed = decoder.process.peak_gb, ALLOWED_RATIO * weights + ALLOWED_GB
    return [
        Figure("MiniLM cpu-int8, stages after import, s", stages, at_most=8),
        Figure("16-layer Llama, whole command, s", decoder.process.seconds, at_most=60),
        Figure("16-layer Llama, peak memory, GB", memory, at_most=round(allowed, 3)),
    ]


def main(results: ResultsFolder = RESULTS) -> None:
    """Build an encoder of up to 64 × 512 tokens, and a decoder of up to 64 × 2,048."""
    place = environment()
    with console.status("building"):
        encoder = watched_build(ENCODER, "cpu-int8")
        decoder, weights = watched_build(DECODER, "cpu-fp32"), weights_gb(DECODER)
    measured = {
        "encoder": encoder.record(),
        "decoder": {"weights_gb": weights, **decoder.record()},
    }
    figures = judge(encoder, decoder, weights)
    show_and_save("check_costs", "builds with wide ranges", place, figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
