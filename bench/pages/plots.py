"""Plots of records, as SVG to put into a page."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from strop.bench.records.record import BenchCase, DuelRecord, Result

COLUMNS = 3
# Okabe and Ito's colours, which colour-blind people can tell apart. Where there are more engines,
# colours are used again with other markers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX*<>p"
# An output without any difference has no ratio; it is drawn on this line.
PERFECT_DB = 150.0
Panel = Callable[[Axes], None]


def pareto(record: DuelRecord) -> str:
    """Latency against fidelity, a panel for each case; a line joins what no other beats in both."""
    known = [c for c in record.cases if any(r.fidelity for r in c.results.values())]
    return _panels([partial(_pareto, record=record, case=case) for case in known])


def _pareto(axes: Axes, record: DuelRecord, case: BenchCase) -> None:
    points = {n: (r.milliseconds.median, y) for n, r in case.results.items() if (y := _quality(r))}
    for name, (x, y) in points.items():
        colour, marker = _look(record, name)
        axes.plot(x, y, marker, color=colour, markersize=8, label=name)
    front = unbeaten(list(points.values()))
    axes.plot(*zip(*front), color="#bbbbbb", linewidth=1, zorder=0)
    axes.set(title=case.label, xlabel="ms", ylabel="SQNR in dB", xscale="log")
    _plain_ticks(axes.xaxis)


def _quality(result: Result) -> float | None:
    """Decibels over the original; None where that is not known or not finite."""
    found = result.fidelity
    if found is None or not found.finite:
        return None
    return PERFECT_DB if found.sqnr_db is None else found.sqnr_db


def unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (time, quality) those with no other that is both faster and better, by time."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def latency_by_dim(record: DuelRecord) -> dict[str, str]:
    """For each dim with several sizes, latency against it; a panel for each choice of the rest."""
    dims = dict.fromkeys(name for case in record.cases for name in case.sizes)
    found = {}
    for dim in dims:
        groups: dict[Any, list[BenchCase]] = {}
        for case in record.cases:
            rest = tuple((n, v) for n, v in case.sizes.items() if n != dim)
            groups.setdefault((case.threads, rest), []).append(case)
        wide = {key: cases for key, cases in groups.items() if len(cases) > 1}
        if wide:
            found[dim] = _panels(
                [
                    partial(_by_dim, record=record, dim=dim, key=key, cases=cases)
                    for key, cases in wide.items()
                ]
            )
    return found


def _by_dim(axes: Axes, record: DuelRecord, dim: str, key: Any, cases: Sequence[BenchCase]) -> None:
    ordered = sorted(cases, key=lambda c: c.sizes[dim])
    sizes = [c.sizes[dim] for c in ordered]
    for name in (*record.subjects, *record.peers):
        colour, marker = _look(record, name)
        times = [c.results[name].milliseconds for c in ordered]
        axes.plot(sizes, [t.median for t in times], f"{marker}-", color=colour, label=name)
        axes.fill_between(
            sizes, [t.low for t in times], [t.high for t in times], color=colour, alpha=0.15
        )
    threads, rest = key
    title = " ".join([*(f"{n}={v}" for n, v in rest), f"threads={threads}"])
    axes.set(title=title, xlabel=dim, ylabel="ms", xscale="log", yscale="log")
    _plain_ticks(axes.yaxis)
    axes.set_xticks(sizes, [str(s) for s in sizes])
    axes.minorticks_off()


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 instead of powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def build_by_layers(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Build time and peak memory against depth; ``runs`` as ``build_scaling`` records them."""
    depths = sorted(runs, key=int)
    layers = [int(d) for d in depths]

    def seconds(axes: Axes) -> None:
        for (key, label), colour in zip(_STAGES.items(), COLOURS):
            known = [(int(d), runs[d][key]) for d in depths if key in runs[d]]
            if known:
                axes.plot(*zip(*known), "o-", color=colour, label=label)
        axes.set(xlabel="layers", ylabel="seconds", title="build time")

    def memory(axes: Axes) -> None:
        axes.plot(layers, [runs[d]["peak_gb"] for d in depths], "o-", color=COLOURS[0])
        axes.set(xlabel="layers", ylabel="GB", title="peak memory", ylim=(0, None))

    return _panels([seconds, memory])


_STAGES = {
    "strop": "strop: passes, lowering, writing",
    "capture": "capture",
    "check": "check",
    "torch_onnx_after_capture": "torch.onnx.export after capture",
}


def _look(record: DuelRecord, name: str) -> tuple[str, str]:
    """Colour and marker, the same for an engine in every plot."""
    names = [e.name for e in record.engines if e.subject]
    names += [e.name for e in record.engines if not e.subject]
    i = names.index(name)
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def _panels(panels: Sequence[Panel]) -> str:
    """Panels side by side in one SVG, whose ids do not clash with those of another."""
    if not panels:
        return ""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns + 1.6, 3.6 * rows), layout="constrained")
    for number, panel in enumerate(panels, 1):
        panel(figure.add_subplot(rows, columns, number))
    known = {t: h for axes in figure.axes for h, t in zip(*axes.get_legend_handles_labels())}
    figure.legend(list(known.values()), list(known), loc="outside right upper")
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
