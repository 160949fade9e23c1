"""What every runtime can do with the files of an artifact: open them, run them, look inside.

``check``, ``bench``, ``debug`` and ``load`` know a target's files by this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from strop.compiler.targets.decoding import Decoder, Names, Start
from strop.compiler.targets.target import MAIN, Target
from strop.compiler.util.numerics import Array

Run = Callable[..., tuple[Array, ...]]
"""``run(**inputs) -> tuple of arrays``, in the order of the contract's outputs."""


class Session(Protocol):
    """Files that were opened.

    Attributes:
        inputs: names of the inputs that the files read; an input that nothing reads is not there.
        outputs: names of the outputs, in order.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]

    def run(self, feeds: Mapping[str, Array], what: str = "") -> dict[str, Array]:
        """Run once; outputs by name.

        Args:
            feeds: arrays by name; those that the files do not read are ignored.
            what: what is run, for the message of an error.

        Raises:
            RuntimeRefusedError: the runtime does not run it.
        """
        ...


@dataclass(frozen=True)
class StandIn:
    """What runs a target's files where the target itself is not at hand: right, but far slower.

    Attributes:
        why: what is not at hand, as a sentence begins: "there is no CUDA device".
        name: what runs them instead.
        seconds: about how long one run of the files in a folder takes on these inputs; always the
            same number for the same files.
    """

    why: str
    name: str
    seconds: Callable[[Path, Mapping[str, Array]], float]


@dataclass(frozen=True)
class TracedNode:
    """One node as the runtime runs it, which may be several of the file's or none of them.

    Attributes:
        name: as the runtime calls it.
        op: its operator.
        values: the names of the values that it makes; () where the runtime does not say.
        milliseconds: one of each run.
    """

    name: str
    op: str
    values: tuple[str, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Trace:
    """Several runs of one file.

    Attributes:
        nodes: in the order in which they ran.
        milliseconds: of each whole run.
        plain: milliseconds of a run without the profiler, the median.
    """

    nodes: tuple[TracedNode, ...]
    milliseconds: tuple[float, ...]
    plain: float

    def between(self) -> list[float]:
        """Milliseconds of each run that no node accounts for."""
        return [
            whole - sum(n.milliseconds[i] for n in self.nodes)
            for i, whole in enumerate(self.milliseconds)
        ]


class Runtime(Protocol):
    """Opens the files that a target's lowering wrote; ``folder`` is where they lie.

    ``program`` is the one of them that is opened.
    """

    def versions(self) -> dict[str, str]:
        """Of the packages that run the files, by name."""
        ...

    def stand_in(self, target: Target) -> StandIn | None:
        """What runs a target's files on this machine, where that is not what it runs them by."""
        ...

    def open(self, folder: Path, target: Target, program: str = MAIN) -> Session:
        """Open the files as they are, with default options, on the target's device or a stand-in.

        Raises:
            RuntimeRefusedError: the runtime does not take them.
        """
        ...

    def decoder(self, session: Session, names: Names, start: Start, shared: bool) -> Decoder:
        """A decoder on files that were opened.

        Args:
            session: of ``open``.
            names: of its inputs and outputs.
            start: its caches and other inputs before the first call.
            shared: whether past and present of a cache may be one buffer.
        """
        ...

    def values(
        self, folder: Path, feeds: Mapping[str, Array], program: str = MAIN
    ) -> dict[str, Array]:
        """Every value that the files compute, by name, in order, without the runtime's own fusions.

        Raises:
            RuntimeRefusedError: the runtime does not load or run them.
        """
        ...

    def text(self, folder: Path, program: str = MAIN) -> str:
        """What the files compute, one node a line.

        Raises:
            UsageError: a file was damaged.
        """
        ...

    def trace(
        self,
        folder: Path,
        target: Target,
        feeds: Mapping[str, Array],
        runs: int,
        program: str = MAIN,
    ) -> Trace:
        """Run the files with the runtime's profiler on.

        Raises:
            UsageError: a file was damaged, or there is no room for temporary files.
            RuntimeRefusedError: the runtime does not load, run or profile them.
        """
        ...


def runtime_of(target: Target) -> Runtime:
    """The runtime of a target; it is loaded only when it is asked for."""
    runtime: Runtime = import_module(f"strop.compiler.targets.{target.runtime}").RUNTIME
    return runtime


def runner(session: Session) -> Run:
    """Opened files as ``run(**inputs) -> tuple of arrays``; inputs are arrays or tensors."""
    from strop.compiler.util.arrays import as_array

    def run(**inputs: Any) -> tuple[Array, ...]:
        feeds = {name: as_array(inputs[name]) for name in session.inputs}
        return tuple(session.run(feeds).values())

    return run
