"""A profile as tables for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from strop.compiler.debug.profile import (
    RUNTIME,
    Group,
    NodeTime,
    Profile,
    by_line,
    by_module,
    by_op,
    by_rule,
)
from strop.compiler.util.terminal import Table

FORMAT = 1
# A run that takes longer than its nodes by this factor counts as disturbed.
BUSY = 1.2


def render(found: Profile, depth: int = 3, top: int = 15) -> Iterator[Table | str]:
    """A summary and the tables; of each at most ``top`` rows, the rest in one."""
    yield _summary(found)
    yield _groups("operator", found.all_of(by_op), top)
    yield _groups("pass: rule", found.all_of(by_rule), top)
    yield _groups("module", found.all_of(by_module(depth)), top)
    yield _groups("source line", found.all_of(by_line), top)
    yield from _moving(found, top)
    yield _nodes("slowest nodes", found, found.slowest()[:top])


def record(found: Profile, depth: int = 3) -> dict[str, Any]:
    """The whole profile for JSON."""
    return {
        "strop_profile": FORMAT,
        "out": found.out.name,
        "inputs": found.inputs,
        "sizes": found.sizes,
        "runs": found.runs,
        "milliseconds": {
            "nodes_and_between": found.milliseconds,
            "between_nodes": found.between,
            "whole_run": found.whole,
            "without_profiler": found.plain,
        },
        "by_operator": [asdict(g) for g in found.all_of(by_op)],
        "by_rule": [asdict(g) for g in found.all_of(by_rule)],
        "by_module": [asdict(g) for g in found.all_of(by_module(depth))],
        "by_line": [asdict(g) for g in found.all_of(by_line)],
        "moving_data": [asdict(g) for g in found.groups(by_op, found.moving)],
        "nodes": [asdict(n) | {"share": found.share(n.milliseconds)} for n in found.slowest()],
    }


def _summary(found: Profile) -> str:
    sizes = ", ".join(f"{name}={size}" for name, size in found.sizes.items())
    own = [n for n in found.nodes if n.ir is None]
    lines = [
        f"{found.milliseconds:.3f} ms a run: medians of {found.runs} runs of each node, added up",
        f"{found.whole:.3f} ms the median whole run, {found.plain:.3f} ms without the profiler",
        f"{found.inputs}" + (f", {sizes}" if sizes else ""),
        f"{len(found.nodes)} nodes ran, {len(own)} of them {RUNTIME}",
    ]
    if found.whole > BUSY * found.milliseconds:
        lines.append("most runs stalled somewhere: the machine is busy, and times are rough")
    return "\n".join(lines)


def _groups(title: str, groups: Sequence[Group], top: int) -> Table:
    table = _table(title, "nodes", "ms", "share")
    shown, rest = groups[:top], groups[top:]
    if len(rest) > 1:  # the last one is what lies between nodes, which is always shown
        others = rest[:-1]
        shown = [*shown, _together(f"{len(others)} more", others)]
    for group in [*shown, *rest[-1:]]:
        nodes = str(group.nodes) if group.nodes else ""
        table.add_row(group.name, nodes, _ms(group.milliseconds), _percent(group.share))
    table.add_section()
    whole = _together("", groups)
    table.add_row("one run", str(whole.nodes), _ms(whole.milliseconds), _percent(whole.share))
    return table


def _together(name: str, groups: Sequence[Group]) -> Group:
    return Group(
        name,
        sum(g.nodes for g in groups),
        sum(g.milliseconds for g in groups),
        sum(g.share for g in groups),
    )


def _moving(found: Profile, top: int) -> Iterator[Table | str]:
    if not found.moving:
        yield "no node only moves or converts data"
        return
    table = _table("moving data", "nodes", "ms", "share")
    for group in found.groups(by_op, found.moving):
        table.add_row(group.name, str(group.nodes), _ms(group.milliseconds), _percent(group.share))
    yield table
    yield _nodes("moving data, by node", found, found.moving[:top])


def _nodes(title: str, found: Profile, nodes: Sequence[NodeTime]) -> Table:
    table = Table()
    for column in (title, "operator", "pass: rule", "source line", "module"):
        table.add_column(column, overflow="fold")
    for column in ("ms", "share"):
        table.add_column(column, justify="right")
    for node in nodes:
        name = node.name if node.ir is None else f"%{node.ir}"
        words = (name, by_op(node), by_rule(node), node.line or "", node.module or "")
        numbers = (_ms(node.milliseconds), _percent(found.share(node.milliseconds)))
        table.add_row(*words, *numbers)
    return table


def _table(title: str, *numbers: str) -> Table:
    table = Table()
    table.add_column(title, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
