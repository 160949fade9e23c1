"""The program ``strop``: signals are heard before anything else is loaded."""

from __future__ import annotations

from strop.compiler.util import interrupts


def main() -> None:
    """Load the command line and run it; a signal while it is loaded has its exit code too."""
    interrupts.listen()
    try:
        from strop.compiler.cli.main import main as run

        run()
    except interrupts.Interrupted:
        interrupts.leave()
