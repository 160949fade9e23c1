"""What a build costs where the largest sizes that a model declares are too many to check.

``python -m strop.bench.check_costs``; each build runs by itself, through the command line.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.machine import environment
from strop.bench.peak_memory import measure, weights_gb

HERE = Path(__file__).parent
ENCODER, DECODER = f"{HERE / 'minilm.py'}:make_wide", f"{HERE / 'llama.py'}:wide"
# Peak memory that is allowed: this share of the weights, and so many GB.
ALLOWED_RATIO, ALLOWED_GB = 1.3, 2.0


def built(source: str, recipe: str) -> dict[str, Any]:
    """Build once; seconds and GB."""
    with tempfile.TemporaryDirectory() as folder, console.status(f"building {source}"):
        found = measure(source, recipe, Path(folder))
    found["peak_gb"] = max(found["kernel_peak_gb"], found["sampled_peak"]["total"])
    found["stages_together"] = sum(found["stage_seconds"].values())
    return found


def judge(encoder: dict[str, Any], decoder: dict[str, Any]) -> list[Figure]:
    """Hold both builds to their figures."""
    allowed = ALLOWED_RATIO * decoder["weights_gb"] + ALLOWED_GB
    return [
        Figure("MiniLM cpu-int8, stages after import, s", encoder["stages_together"], at_most=8),
        Figure("16-layer Llama, whole command, s", decoder["seconds"], at_most=60),
        Figure("16-layer Llama, peak memory, GB", decoder["peak_gb"], at_most=round(allowed, 3)),
    ]


def main(
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Build an encoder of up to 64 × 512 tokens, and a decoder of up to 64 × 2,048."""
    place = environment()
    encoder, decoder = built(ENCODER, "cpu-int8"), built(DECODER, "cpu-fp32")
    decoder["weights_gb"] = weights_gb(DECODER)
    figures = judge(encoder, decoder)
    show(figures, "builds with wide ranges")
    save("check_costs", place, figures, {"encoder": encoder, "decoder": decoder}, results)


if __name__ == "__main__":
    typer.run(main)
