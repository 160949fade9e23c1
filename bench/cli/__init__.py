"""``strop bench``: the command line of the benchmarks."""

from strop.bench.cli.main import app

__all__ = ["app"]
