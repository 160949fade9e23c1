"""One trial: build a recipe, and measure what the search is for."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.artifact.folder import Artifact
from strop.compiler.artifact.report.worst import worst_of
from strop.compiler.driver.clock import turn, turns
from strop.compiler.driver.driver import build
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.source import load_source
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.targets.isolation import IsolatedSession, open_isolated
from strop.compiler.util import interrupts
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.numerics import Array
from strop.compiler.util.stages import Progress


@dataclass(frozen=True)
class Workshop:
    """Builds recipes of one model, and times them against the recipe as it is.

    A time is a share of that of the recipe as it is, measured in turns with it: so those of many
    workers, on machines of different speed, can be compared.

    Attributes:
        source: the model.
        feeds: what artifacts are timed on.
        base: the recipe as it is, opened.
        measured: that of the recipe as it is; its latency is 1.
        progress: told the stages of a build.
    """

    source: str
    feeds: Mapping[str, Array]
    base: IsolatedSession
    measured: Mapping[str, float]
    progress: Progress

    def values(self, recipe: Recipe) -> dict[str, float]:
        """Build a recipe; what was measured of it, by the names of objectives.

        Raises:
            StropError: it cannot be built, or misses its budget.
        """
        with _built(self.source, recipe, self.progress) as artifact:
            found = _of(artifact)
            with open_isolated(artifact.path, artifact.target) as session:
                rounds = turns(turn(session, self.feeds), turn(self.base, self.feeds))
                return found | {"latency": statistics.median(a / b for a, b in rounds)}


@contextmanager
def workshop(source: str, recipe: Recipe, progress: Progress) -> Iterator[Workshop]:
    """Build the recipe as it is, and keep it open for the length of the block.

    Raises:
        StropError: it cannot be built.
    """
    _, example, calibration = read_inputs(_model(source))
    inputs = (calibration or [example])[0]
    feeds = {name: to_array(tensor) for name, tensor in inputs.items()}
    with _built(source, recipe, progress) as artifact:
        measured = _of(artifact) | {"latency": 1.0}
        with open_isolated(artifact.path, artifact.target) as session:
            yield Workshop(source, feeds, session, measured, progress)


def require_measured(names: Mapping[str, object], measured: Mapping[str, float]) -> None:
    """Check that everything that is searched for was measured of the recipe as it is.

    Raises:
        UsageError: ``evaluate`` did not return a metric.
    """
    for name in names:
        if name not in measured:
            raise UsageError(
                f"[metrics]: evaluate did not return '{name}'{did_you_mean(name, list(measured))}"
            )


def _model(source: str) -> Model:
    made = load_source(source)
    if isinstance(made, Model):
        return made
    raise UsageError(
        f"{source} makes {len(made.models)} programs, and a search builds one: write a factory "
        "that returns the Model of the one to search for"
    )


@contextmanager
def _built(source: str, recipe: Recipe, progress: Progress) -> Iterator[Artifact]:
    with tempfile.TemporaryDirectory(prefix="strop-search-") as folder:
        out = Path(folder) / "artifact"
        try:
            artifact = build(
                _model(source), out, recipe, progress=progress, again=lambda: _model(source)
            )
        finally:
            interrupts.unsettle()  # an artifact that was written does not end the search
        yield artifact


def _of(artifact: Artifact) -> dict[str, float]:
    """What an artifact says of itself: its size, how near it is, and the user's metrics."""
    worst = worst_of(artifact.manifest["checks"])
    near = worst.cosine
    if near is None:
        near = 1 - worst.others["max_error"] if worst.others else 1.0
    metrics = artifact.manifest["metrics"].get("artifact", {})
    return {**metrics, "size": float(artifact.size), "fidelity": float(near)}
