"""At which sizes a build is checked: all that its dims declare, or what does not cost too much.

With one dim at its largest size and the others at their smallest, each bound is tried by itself.
All dims at their largest together cost the product of them: hours, for some models. There the
largest sizes are taken that fit an allowance, and what is left out is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from strop.compiler.frontend.allowance import ONE_DIM, TOGETHER, Allowance, seconds
from strop.compiler.frontend.inputs import Signature
from strop.compiler.ir.cost import Cost, CostModel
from strop.compiler.ir.running import Inputs

CheckScope = Literal["bounded", "full"]
"""Which sizes are run: those whose cost fits the allowances, or all corners."""
Sizes = dict[str, int]
CostAt = Callable[[Mapping[str, int]], Cost]

# Steps between the smallest and the largest sizes, among which the largest that fit are looked for.
_STEPS = 64


@dataclass(frozen=True)
class LeftOut:
    """Sizes within the declared ranges that were not run, and the estimate that says why."""

    sizes: Sizes
    multiply_adds: int
    bytes: int

    @staticmethod
    def at(sizes: Sizes, cost: Cost) -> LeftOut:
        """Sizes and what they would have cost."""
        return LeftOut(sizes, cost.multiply_adds, cost.peak + cost.outputs)


@dataclass
class Coverage:
    """What was run of what could be: filled in while cases are chosen; for the manifest.

    Attributes:
        check: how the sizes are chosen.
        run: sizes at which original and file are run, beside those of the calibration inputs.
        left_out: declared corners that were not.
        calibration: how many calibration inputs there are, and how many of them are cases.
    """

    check: CheckScope = "bounded"
    run: list[Sizes] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    calibration: dict[str, int] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def leave_out(self, sizes: Sizes, cost: Cost) -> None:
        """Note sizes that are not run."""
        self.left_out.append(LeftOut.at(sizes, cost))


def complete(
    corners: Sequence[Sizes],
    traced: Sizes,
    signature: Signature,
    cost_at: CostAt,
    coverage: Coverage,
) -> list[Sizes | None]:
    """Sizes of all dims for corners that name some of them, within the allowance of one dim.

    The others are as they were traced, or small where that costs too much.

    Returns:
        For each corner its sizes; None where it is left out, or not within a sum of dims.
    """
    others, spent = _small(signature), 0.0
    found: list[Sizes | None] = []
    for corner in corners:
        tried = [s for s in (traced | corner, others | corner) if signature.allows(s)]
        if not tried:
            found.append(None)
            continue
        costs = [cost_at(sizes) for sizes in tried]
        fitting = (
            sizes
            for sizes, cost in zip(tried, costs)
            if coverage.check == "full"
            or (ONE_DIM.admits(cost) and spent + seconds(cost) <= ONE_DIM.seconds)
        )
        chosen = next(fitting, None)
        if chosen is None:
            coverage.leave_out(corner, costs[-1])
        else:
            spent += seconds(costs[tried.index(chosen)])
        found.append(chosen)
    return found


def smallest_sizes(signature: Signature) -> Sizes:
    """Every dim at the least that it may be."""
    return {d.name: d.min for d in signature.dims.values()}


def _small(signature: Signature) -> Sizes:
    """The smallest sizes at which there is something to compare."""
    return {d.name: max(d.min, 1 if d.max != 0 else 0) for d in signature.dims.values()}


def choose_sizes(
    signature: Signature, example: Inputs, program: CostModel | None, coverage: Coverage
) -> dict[str, Sizes]:
    """Sizes to check, by label: the smallest, the largest, and odd ones between.

    At odd sizes, divisions have a remainder. An unbounded dim goes to twice its example size
    plus one.

    Args:
        signature: the dims.
        example: inputs whose sizes are known.
        program: estimates costs; None only where ``coverage`` asks for all corners.
        coverage: takes down what is left out.
    """
    if not signature.dims:
        return {}
    known = signature.sizes(example)
    low = smallest_sizes(signature)
    high = {
        d.name: 2 * known[d.name] + 1 if d.max is None else d.max for d in signature.dims.values()
    }
    between = {name: min((low[name] + high[name]) // 2 | 1, high[name]) for name in low}
    bounded = coverage.check == "bounded"
    assert program is not None or not bounded
    cost_at = program.at if program is not None and bounded else _free
    whole = TOGETHER if len(high) > 1 else ONE_DIM
    found = {"smallest": low, "between": between, "largest": high}
    if not signature.allows(high) or not whole.admits(cost_at(high)):
        found = _bounded(signature, between, high, cost_at, coverage)
    return _different(found)


def _free(sizes: Mapping[str, int]) -> Cost:
    """The cost of sizes where all are run whatever they cost."""
    return Cost(0, 0, 0, 0)


def _different(found: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Each set of sizes once, under its first label."""
    first = {tuple(sizes.values()): label for label, sizes in reversed(list(found.items()))}
    return {label: sizes for label, sizes in found.items() if label in first.values()}


def _bounded(
    signature: Signature, between: Sizes, high: Sizes, cost_at: CostAt, coverage: Coverage
) -> dict[str, Sizes]:
    """Each dim at its largest size with the others small, and the largest together that fit."""
    others = _small(signature)
    if signature.allows(high):
        coverage.leave_out(high, cost_at(high))

    def fitting(end: Sizes, allowance: Allowance) -> Sizes:
        return largest_fitting(
            others, end, lambda s: signature.allows(s) and allowance.admits(cost_at(s))
        )

    found = {"smallest": smallest_sizes(signature)}
    for name in high:
        end = _within_sums(signature, others | {name: high[name]}, name)
        found[f"largest {name}"] = fitting(end, ONE_DIM)
        if found[f"largest {name}"] != end and end != high:
            coverage.leave_out(end, cost_at(end))
    found["between"] = _odd(fitting(between, TOGETHER), others)
    found["large"] = fitting(high, TOGETHER)
    return found


def _within_sums(signature: Signature, sizes: Sizes, name: str) -> Sizes:
    """The sizes with one dim made less until sums that it is part of are in their ranges."""
    for extent, most in signature.sums.items():
        beyond = sum(sizes[dim] for dim in extent) - most
        if name in extent and beyond > 0:
            sizes = sizes | {name: sizes[name] - -(-beyond // extent.count(name))}
    return sizes


def _odd(sizes: Sizes, least: Sizes) -> Sizes:
    return {name: max(size - 1 + size % 2, least[name]) for name, size in sizes.items()}


def largest_fitting(low: Sizes, high: Sizes, fits: Callable[[Sizes], bool]) -> Sizes:
    """The largest sizes on the way from low to high that fit; all dims grow by equal factors.

    Sizes at which not even ``low`` fits are ``low``.
    """
    if fits(high):
        return high
    fitting, too_large = 0, _STEPS
    while too_large - fitting > 1:
        step = (fitting + too_large) // 2
        if fits(_step(low, high, step)):
            fitting = step
        else:
            too_large = step
    return _step(low, high, fitting)


def _step(low: Sizes, high: Sizes, step: int) -> Sizes:
    """Sizes in geometric steps; a size of 0 stays."""
    share = step / _STEPS
    grown = {n: round(size * (high[n] / max(size, 1)) ** share) for n, size in low.items()}
    return {n: min(max(size, low[n]), high[n]) for n, size in grown.items()}
