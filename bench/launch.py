"""Processes that benchmarks start: strop's command line, and single measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def strop_command(*arguments: str) -> list[str]:
    """The command that runs ``strop`` with these arguments, by this interpreter."""
    return [sys.executable, "-m", "strop.compiler.cli", *arguments]


def run_strop(folder: Path, *arguments: str, **environ: str) -> None:
    """Run ``strop`` in a folder, with some environment variables replaced.

    Raises:
        SystemExit: it failed; the message is what it wrote to the terminal.
    """
    done = subprocess.run(
        strop_command(*arguments),
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"strop ended with exit status {done.returncode}: {done.stderr}")


def measured_apart(module: str, *arguments: str) -> Any:
    """Run a module in a new process; returns the JSON of the last line that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
