"""Profile an artifact: the runtime's node times, added up by pass, module and source line."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strop.compiler.lower.provenance import Provenance
    from strop.compiler.targets.runtime import Trace

RUNTIME = "the runtime's own"
BETWEEN = "between nodes"
TOP = "(the model itself)"
UNKNOWN = "(not known)"
# They compute nothing: they change how numbers are laid out or written.
MOVING = frozenset(
    (
        "Cast", "Concat", "DequantizeLinear", "DynamicQuantizeLinear", "Expand", "Flatten",
        "Identity", "MemcpyFromHost", "MemcpyToHost", "QuantizeLinear", "ReorderInput",
        "ReorderOutput", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
    )
)  # fmt: skip


@dataclass(frozen=True)
class NodeTime:
    """One node as the runtime ran it.

    Attributes:
        name: as the runtime calls it.
        op: its operator.
        written: the operator of the file that makes the same value: another one where the runtime
            fused or replaced nodes; None for a node of the runtime's own.
        ir: the IR node that it was emitted for, the last where several were fused.
        rule: the rule that made the IR node; "capture" where none did.
        step: the pass of that rule; "capture" where there is none.
        line: source line.
        module: module path; "" is the model itself.
        milliseconds: of one run.
    """

    name: str
    op: str
    written: str | None
    ir: str | None
    rule: str | None
    step: str | None
    line: str | None
    module: str | None
    milliseconds: float


@dataclass(frozen=True)
class Group:
    """Some nodes together: how many, their time in one run, and their share of it."""

    name: str
    nodes: int
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Where the time of one run is.

    Times are medians over the runs, of each node by itself: on a busy machine every run stalls at
    some node, at another each time.

    Attributes:
        out: the artifact.
        inputs: what it was run on, in words.
        sizes: of the dynamic dims.
        runs: how many were made.
        nodes: in the order in which they ran.
        between: milliseconds of a run that no node accounts for.
        whole: milliseconds of a whole run; at least that of its parts, and more where they stall.
        plain: the same without the profiler.
    """

    out: Path
    inputs: str
    sizes: dict[str, int]
    runs: int
    nodes: tuple[NodeTime, ...]
    between: float
    whole: float
    plain: float

    @property
    def milliseconds(self) -> float:
        """Of one run in which nothing stalls: all nodes and what is between them."""
        return self.between + sum(n.milliseconds for n in self.nodes)

    def share(self, milliseconds: float) -> float:
        """A time as a share of ``milliseconds``."""
        return milliseconds / self.milliseconds

    def slowest(self) -> list[NodeTime]:
        """The nodes, slowest first."""
        return sorted(self.nodes, key=lambda n: -n.milliseconds)

    def groups(
        self, key: Callable[[NodeTime], str], nodes: Iterable[NodeTime] | None = None
    ) -> list[Group]:
        """Nodes under one name together, slowest first."""
        found: dict[str, list[float]] = {}
        for node in self.nodes if nodes is None else nodes:
            found.setdefault(key(node), []).append(node.milliseconds)
        made = [Group(name, len(ms), sum(ms), self.share(sum(ms))) for name, ms in found.items()]
        return sorted(made, key=lambda g: -g.milliseconds)

    def all_of(self, key: Callable[[NodeTime], str]) -> list[Group]:
        """The groups of all nodes, and what is between them: their shares sum to 1."""
        return [*self.groups(key), Group(BETWEEN, 0, self.between, self.share(self.between))]

    @property
    def moving(self) -> list[NodeTime]:
        """Nodes that move or convert data and compute nothing, slowest first."""
        return [n for n in self.slowest() if n.op in MOVING]


def by_op(node: NodeTime) -> str:
    """The operator, and what it stands for where the runtime put it there."""
    return node.op if node.written in (node.op, None) else f"{node.op} (for {node.written})"


def by_rule(node: NodeTime) -> str:
    """The pass and its rule."""
    if node.step is None or node.rule is None:
        return RUNTIME
    return node.step if node.step == node.rule else f"{node.step}: {node.rule}"


def by_line(node: NodeTime) -> str:
    """The source line."""
    return RUNTIME if node.ir is None else node.line or UNKNOWN


def by_module(depth: int) -> Callable[[NodeTime], str]:
    """The module path, cut to so many names."""

    def key(node: NodeTime) -> str:
        if node.ir is None:
            return RUNTIME
        if node.module is None:
            return UNKNOWN
        return ".".join(node.module.split(".")[:depth]) or TOP

    return key


def profile(
    out: Path, words: Sequence[str] = (), *, source: str = "", runs: int = 20, program: str = ""
) -> Profile:
    """Run an artifact in a default session with the runtime's profiler on.

    Args:
        out: the artifact.
        words: sizes of dynamic dims, ``batch=1 seq=128``.
        source: where inputs come from; by default where the artifact was built from, if that is
            known on this machine, and else they are made up.
        runs: how many to make, after a few that do not count.
        program: which of several.

    Raises:
        UsageError: no artifact, or a damaged one, or sizes that it does not take.
        RuntimeRefusedError: the runtime does not run it, or the target's device is not there.
    """
    from strop.compiler.artifact.folder import read_intact
    from strop.compiler.artifact.provenance import read_provenance
    from strop.compiler.debug.feeds import feeds_for, one_size_each
    from strop.compiler.targets.runtime import runtime_of
    from strop.compiler.util.errors import RuntimeRefusedError

    artifact = read_intact(out)
    name, known = artifact.choose(program), artifact.program(program)
    records = read_provenance(artifact, program)
    sizes = one_size_each(words, known["contract"]["dims"])
    feeds = feeds_for(artifact, source, sizes, program)
    runtime = runtime_of(artifact.target)
    if (stand_in := runtime.stand_in(artifact.target)) is not None:
        raise RuntimeRefusedError(
            f"{stand_in.why}, and how long {stand_in.name} takes says nothing of "
            f"{artifact.target.name}"
        )
    found = runtime.trace(artifact.path, artifact.target, feeds.arrays, runs, name)
    return Profile(
        out=out,
        inputs=feeds.origin,
        sizes=feeds.sizes,
        runs=len(found.milliseconds),
        nodes=attribute(found, records, known["passes"]),
        between=statistics.median(found.between()),
        whole=statistics.median(found.milliseconds),
        plain=found.plain,
    )


def attribute(
    found: Trace, records: Sequence[Provenance], passes: Sequence[Mapping[str, Any]]
) -> tuple[NodeTime, ...]:
    """Say of every node that ran where it comes from.

    The runtime fuses and renames nodes when it loads a file, but keeps the names of values: a
    node is what the file has for a value that it makes. Where it renames that too, it keeps the
    node's name, or makes one from it.
    """
    by_value = {value: record for record in records for value in record.values}
    by_name = {record.name: record for record in records}
    nodes = []
    for node in found.nodes:
        made = [by_value[v] for v in node.values if v in by_value]
        record = made[0] if made else by_name.get(_written_name(node.name))
        nodes.append(
            NodeTime(
                name=node.name,
                op=node.op,
                written=record.op if record else None,
                ir=record.ir if record else None,
                rule=record.rule if record else None,
                step=_steps_of(record.rule, passes) if record else None,
                line=record.line if record else None,
                module=record.module if record else None,
                milliseconds=statistics.median(node.milliseconds),
            )
        )
    return tuple(nodes)


def _written_name(name: str) -> str:
    """The name in the file of a node that the runtime renamed."""
    return name.removesuffix("_nchwc").partition("/")[0]


def _steps_of(rule: str, passes: Sequence[Mapping[str, Any]]) -> str:
    """The passes in which a rule rewrote something; the rule itself where none says so."""
    return " or ".join(p["name"] for p in passes if rule in p["rewrites"]) or rule
