"""``python -m strop.bench.sweeps.zoo``: build the zoo, and put it on record."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from strop.bench.models.zoo import ZOO, attention_found
from strop.bench.pages.markers import RESULTS_PAGE, put
from strop.compiler import build
from strop.compiler.util.errors import StropError
from strop.compiler.util.terminal import Console

RESULTS = Path(__file__).parents[1] / "results" / "zoo.json"
RECIPE = "cpu-fp32"


@dataclass(frozen=True)
class ZooRow:
    """One model: what came of it, or why it does not work.

    Attributes:
        model: its name in the zoo.
        captured: operator calls after capture.
        final: nodes in the ONNX file.
        found: attention operators that the passes made.
        expected: attention layers in the model.
        error: worst difference from the original at any size, relative above magnitude 1.
        reason: why it could not be built; None if it was.
    """

    model: str
    captured: int | None
    final: int | None
    found: int | None
    expected: int
    error: float | None
    reason: str | None


def measure(name: str, folder: Path) -> ZooRow:
    """Build one model with dynamic dims; a refusal is a row with its reason."""
    entry = ZOO[name]
    try:
        artifact = build(entry.make(), out=folder / name, recipe=RECIPE)
    except StropError as error:
        reason = str(error).splitlines()[0]
        return ZooRow(name, None, None, None, entry.attention, None, reason)
    manifest = artifact.manifest
    return ZooRow(
        model=name,
        captured=manifest["passes"][0]["nodes_before"],
        final=len(onnx.load(artifact.model_path, load_external_data=False).graph.node),
        found=attention_found(manifest),
        expected=entry.attention,
        error=max(check["max_error"] for check in manifest["checks"]),
        reason=None,
    )


def table(rows: list[ZooRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | nodes captured | nodes in the file | attention found / layers | worst error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row.reason is not None:
            lines.append(f"| {row.model} | – | – | – / {row.expected} | {row.reason} |")
        else:
            attention = f"{row.found} / {row.expected}"
            numbers = f"{row.captured} | {row.final} | {attention} | {row.error:.1e}"
            lines.append(f"| {row.model} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Build every model, write the record, and the table of results."""
    console = Console()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ZOO:
            start = time.perf_counter()
            row = measure(name, Path(folder))
            rows.append(row)
            said = row.reason or f"{row.found} of {row.expected} attention, {row.error:.1e}"
            console.print(f"{name}: {said} ({time.perf_counter() - start:.1f} s)")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    put(RESULTS_PAGE, "zoo", table(rows))


if __name__ == "__main__":
    main()
