"""The comparison of what two checkouts build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from strop.bench.measures import same_bytes


def test_what_only_one_has_or_has_otherwise_differs() -> None:
    assert same_bytes.differing({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]


def test_saved_hashes_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("before.json", "after.json")]
    for file, value in zip(files, ("1", "2")):
        file.write_text(json.dumps({"same": "0", "model": value}))
    with pytest.raises(typer.Exit) as ended:
        same_bytes.main(*files)
    assert ended.value.exit_code == 3
    assert capsys.readouterr().out == "2 files, 1 differ\n  model\n"
    with pytest.raises(typer.Exit) as ended:
        same_bytes.main(files[0], files[0])
    assert ended.value.exit_code == 0


def test_a_model_that_is_not_built_has_its_error_for_a_hash() -> None:
    def broken() -> object:
        raise ValueError("no such weights\nmore")

    assert same_bytes._built(broken, "cpu-fp32") == "no such weights"
