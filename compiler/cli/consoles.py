"""The two streams that the commands write to."""

from __future__ import annotations

from strop.compiler.util.terminal import Console

out_console = Console()
err_console = Console(stderr=True)


def say_problem(problem: str) -> None:
    """Write an error message to standard error, in red."""
    # Not wrapped: a message may be searched for, and holds paths.
    err_console.say(f"strop: {problem}", "red")
