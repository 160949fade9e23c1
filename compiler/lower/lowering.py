"""What every lowering does: take a program, and give the files that a target runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.provenance import Provenance
from strop.compiler.lower.shared import SharedWeights
from strop.compiler.targets.target import MAIN, Target


class Lowered(Protocol):
    """A lowered program; its weights are read when it is written."""

    @property
    def shared_caches(self) -> frozenset[str]:
        """Inputs that a caller may bind to one buffer with the outputs that continue them.

        The buffer may be longer than what it holds.
        """
        ...

    @property
    def copied_caches(self) -> Mapping[str, str]:
        """By input, why a cache that attention continues can lie in no such buffer, in words."""
        ...

    @property
    def prefill(self) -> str:
        """After what the second file of a decoder is named, for many new tokens; "" for none."""
        ...

    def write(
        self, folder: Path, program: str = MAIN, shared: SharedWeights | None = None
    ) -> list[str]:
        """Write the files into a folder.

        Args:
            folder: where to.
            program: after which the files are named.
            shared: what the file of weights in the folder holds, which this adds to; None where
                the program is the only one.

        Returns:
            The names of the files.
        """
        ...

    def provenance(self) -> Iterable[Provenance]:
        """Where every node of the files comes from, in order."""
        ...


class Lowering(Protocol):
    """Makes the files of a kind of targets."""

    def lower(self, program: Program, target: Target, choices: Choices | None = None) -> Lowered:
        """Lower a program.

        Args:
            program: after all passes.
            target: where it will run.
            choices: measured ones; those that ship with strop for the target by default.

        Raises:
            UnsupportedError: naming every operator that nothing lowers, with its source line.
        """
        ...

    def tuned(self, target: Target, progress: Callable[[str], None]) -> Choices:
        """Measure which emitters are fastest here; ``progress`` is called with what is measured."""
        ...


def lowering_of(target: Target) -> Lowering:
    """The lowering of a target; it is loaded only when it is asked for."""
    lowering: Lowering = import_module(f"strop.compiler.lower.{target.lowering}.entry").LOWERING
    return lowering
