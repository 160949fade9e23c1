"""Processes that benchmarks start."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.bench.launch import measured_apart, run_strop


def test_a_measurement_is_the_last_line_that_a_module_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing.py").write_text("import sys; print('begun'); print(sys.argv[1])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert measured_apart("printing", '{"seconds": 1.5}') == {"seconds": 1.5}


def test_a_failed_command_ends_with_its_own_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"strop ended with exit status 2: .*no_such"):
        run_strop(tmp_path, "inspect", "no_such")
