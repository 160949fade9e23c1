"""The page of a search: every trial, and those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product

from jinja2 import Environment, FunctionLoader, StrictUndefined

from strop.compiler.artifact.report import units
from strop.compiler.artifact.report.page import shell
from strop.compiler.search.space import Direction, as_text
from strop.compiler.search.study import Tried

FILES = resources.files("strop.compiler.search")
WIDTH, HEIGHT = 600, 240
"""Of a chart, in its own units."""


@dataclass(frozen=True)
class Point:
    """A trial in a chart.

    Attributes:
        x: from the left.
        y: from the top.
        best: no other trial beats it.
        text: what it is, in words.
    """

    x: float
    y: float
    best: bool
    text: str


@dataclass(frozen=True)
class Chart:
    """Two objectives against each other, and between what the axes reach."""

    across: str
    upwards: str
    ends: tuple[str, str, str, str]
    points: Sequence[Point]


def render(
    recipe: str,
    directions: Mapping[str, Direction],
    base: Mapping[str, float],
    tried: Sequence[Tried],
) -> str:
    """The page.

    Args:
        recipe: its name.
        directions: the objectives, and which way each is better.
        base: what the recipe as it is was measured by; empty where that is not known.
        tried: all trials.
    """
    good = [one for one in tried if not one.reason]
    page = (
        _environment()
        .get_template("search.html.j2")
        .render(
            recipe=recipe,
            directions=directions,
            base=base,
            best=sorted(
                filter(_is_best, good), key=lambda one: one.measured[next(iter(directions))]
            ),
            good=good,
            failed=[one for one in tried if one.reason],
            charts=_charts(list(directions), good),
            **shell(),
        )
    )
    return page.encode("utf-8", "backslashreplace").decode()


def _is_best(one: Tried) -> bool:
    return one.best


def shown(name: str, value: float) -> str:
    """A measured value as people read it."""
    if name == "size":
        return units.size(value)
    return f"{value:.2f}×" if name == "latency" else f"{value:.6g}"


def values_text(values: Mapping[str, object]) -> str:
    """The parameters of a trial in one line."""
    return ", ".join(f"{name} = {as_text(value)}" for name, value in values.items())


def _charts(names: Sequence[str], tried: Sequence[Tried]) -> list[Chart]:
    """The fidelity, or else the last objective, over each other one."""
    if not tried:
        return []
    upwards = "fidelity" if "fidelity" in names else names[-1]
    return [_chart(across, upwards, tried) for across in names if across != upwards]


def _chart(across: str, upwards: str, tried: Sequence[Tried]) -> Chart:
    low, high = ([pick(one.measured[n] for one in tried) for n in (across, upwards)]
                 for pick in (min, max))  # fmt: skip
    points = [
        Point(
            WIDTH * _share(one.measured[across], low[0], high[0]),
            HEIGHT * (1 - _share(one.measured[upwards], low[1], high[1])),
            one.best,
            f"trial {one.number}: {across} {shown(across, one.measured[across])}, "
            f"{upwards} {shown(upwards, one.measured[upwards])}",
        )
        for one in tried
    ]
    left, right, bottom, top = (
        shown(name, end[i]) for (i, name), end in product(enumerate((across, upwards)), (low, high))
    )
    return Chart(across, upwards, (left, right, bottom, top), points)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(lambda name: (FILES / name).read_text(encoding="utf-8")),
        # Names and reasons come from models and recipes.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(shown=shown, values_text=values_text)
    return made
