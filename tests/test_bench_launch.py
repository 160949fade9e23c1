"""Command lines that benchmarks run."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.bench.processes.launch import run_python, run_strop


def test_python_runs_in_a_folder_with_variables_replaced_and_its_words_kept(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['COLOUR']); sys.exit('the end')"
    done = run_python("-c", code, folder=tmp_path, environ={"COLOUR": "red"})
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{tmp_path} red\n", "the end\n")


def test_a_failed_command_ends_with_its_own_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"strop ended with exit status 2: .*no_such"):
        run_strop(tmp_path, "inspect", "no_such")
