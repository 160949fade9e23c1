"""``strop bench`` of one of several programs."""

from __future__ import annotations

from pathlib import Path

import pairs
import pytest
from conftest import Strop

from strop.bench.records.reading import read_record
from strop.compiler import Recipe, build


@pytest.mark.slow
def test_one_program_is_measured_against_its_original(strop: Strop, tmp_path: Path) -> None:
    source = tmp_path / "two.py"
    source.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import pairs\n\ndef make():\n    return pairs.make()\n"
    )
    out = build(pairs.make(), tmp_path / "out", Recipe(name="bare")).path
    record = tmp_path / "a.json"
    few = ("--bouts", "1", "--rounds", "1", "--threads", "1", "--against", "eager")
    ended = strop(
        "bench", out, "--program", "decoder", "--source", f"{source}:make", *few, "--json", record
    )
    assert ended.code == 0, ended.err
    found = {row.name: row for row in read_record(record).engines}
    assert {row.outcome for row in found.values()} == {"ran"}
    ours = (out / "decoder.onnx").stat().st_size + (out / "model.onnx.data").stat().st_size
    assert found["strop"].bytes == ours
