"""Command lines that benchmarks run: Python in a new process, and ``strop`` itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def strop_command(*arguments: str) -> list[str]:
    """The command that runs ``strop`` with these arguments, by this interpreter."""
    return [sys.executable, "-m", "strop.compiler.cli", *arguments]


def run_python(
    *arguments: str, folder: Path | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a new process, to its end; what it prints is kept.

    Args:
        arguments: of Python.
        folder: where it runs; the current one by default.
        environ: environment variables to replace.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | (environ or {}),
        capture_output=True,
        text=True,
    )


def require_success(done: subprocess.CompletedProcess[str], what: str) -> None:
    """End this process if that one failed.

    Raises:
        SystemExit: it failed; the message is what it wrote to the terminal.
    """
    if done.returncode:
        raise SystemExit(f"{what} ended with exit status {done.returncode}: {done.stderr}")


def run_strop(folder: Path, *arguments: str, **environ: str) -> None:
    """Run ``strop`` in a folder, with some environment variables replaced.

    Raises:
        SystemExit: it failed; the message is what it wrote to the terminal.
    """
    _, *command = strop_command(*arguments)
    require_success(run_python(*command, folder=folder, environ=environ), "strop")
