"""``python -m strop.bench.sweeps.zoo``: build the zoo, and put it on record."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import onnx

from strop.bench.models.zoo import ZOO, attention_found
from strop.bench.records.figures import console
from strop.bench.sweeps.zoo.rows import ZooRow, save_rows
from strop.compiler import build
from strop.compiler.util.errors import StropError

RECIPE = "cpu-fp32"


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


def main() -> None:
    """Build every model, and write the record."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ZOO:
            start = time.perf_counter()
            row = measure(name, Path(folder))
            rows.append(row)
            said = row.reason or f"{row.found} of {row.expected} attention, {row.error:.1e}"
            console.print(f"{name}: {said} ({time.perf_counter() - start:.1f} s)")
    save_rows(rows)


if __name__ == "__main__":
    main()
