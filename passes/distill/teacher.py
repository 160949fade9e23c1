"""The teacher's values, computed once for each batch and kept on disk up to a bound."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from strop.compiler.ir.contract import TensorSpec
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import input_node, shape_of, static_int
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.weight_store import read_tensors, write_tensors
from strop.compiler.rewriting.batches import on_batch
from strop.compiler.rewriting.context import Batch, digest_of
from strop.compiler.util.errors import UsageError

_WHOLE = torch.contiguous_format


def require_same_contract(student: Program, teacher: Program) -> None:
    """Hold student and teacher to the same inputs and outputs.

    Raises:
        UsageError: names or sizes differ, or the teacher knows fewer words.
    """
    for what, ours, theirs in (
        ("input", student.contract.inputs, teacher.contract.inputs),
        ("output", student.contract.outputs, teacher.contract.outputs),
    ):
        _require_same(what, ours, theirs)
    known = _vocabularies(teacher)
    for name, words in _vocabularies(student).items():
        if known.get(name, words) < words:
            raise UsageError(
                f"the teacher looks '{name}' up in a table of {known[name]} rows, the student in "
                f"one of {words}: both need the same vocabulary"
            )


def _vocabularies(program: Program) -> dict[str, int]:
    """By input that tables are looked up with, the rows of the smallest one."""
    found: dict[str, int] = {}
    for node in program.find(torch.ops.aten.embedding.default):
        table, index = input_node(node, 0), input_node(node, 1)
        while index.target in CASTS:
            index = input_node(index)
        rows = static_int(shape_of(table)[0])
        if index.op == "placeholder" and rows is not None:
            found[str(index.target)] = min(rows, found.get(str(index.target), rows))
    return found


def _require_same(what: str, ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> None:
    names = [[spec.name for spec in specs] for specs in (ours, theirs)]
    if names[0] != names[1]:
        raise UsageError(
            f"the teacher has the {what}s {', '.join(names[1])}, the student "
            f"{', '.join(names[0])}: it learns from a teacher with the same inputs and outputs"
        )
    for one, other in zip(ours, theirs):
        if one.shape != other.shape:
            raise UsageError(
                f"the teacher's {what} '{one.name}' is {list(other.shape)}, the student's "
                f"{list(one.shape)}: both need the same sizes, and the same vocabulary or classes"
            )


class Teacher:
    """Gives the teacher's values for a batch; no gradient reaches them.

    They are computed as the student's are: under autocast where that is on.
    """

    def __init__(
        self, program: Program, folder: Path | None, most_bytes: int, say: Callable[[str], None]
    ) -> None:
        """Look at what is kept already.

        Args:
            program: whose outputs, taps included, are given.
            folder: where values are kept; None keeps nothing.
            most_bytes: values of batches beyond this are computed each time.
            say: told if the disk cannot hold them.
        """
        self._program, self._folder, self._say = program, folder, say
        self._left = most_bytes
        if folder is not None:
            folder.mkdir(exist_ok=True)
            self._left -= sum(path.stat().st_size for path in folder.glob("*.safetensors"))

    def values(self, batch: Batch) -> list[torch.Tensor]:
        """The outputs for a batch, in order."""
        if self._folder is None:
            return self._compute(batch)
        path = self._folder / f"{self._name(batch)}.safetensors"
        if path.exists():
            try:
                held = read_tensors(path, "what is kept of the teacher", within=self._folder)
                return [held[str(i)] for i in range(len(held))]
            except UsageError:  # damaged: written again
                path.unlink()
        found = self._compute(batch)
        self._keep(found, path)
        return found

    def _compute(self, batch: Batch) -> list[torch.Tensor]:
        with torch.no_grad():
            return list(on_batch(self._program, batch))

    def _name(self, batch: Batch) -> str:
        """A name for the inputs in a batch."""
        digest = hashlib.sha256()
        digest_of({spec.name: batch[spec.name] for spec in self._program.contract.inputs}, digest)
        return digest.hexdigest()[:32]

    def _keep(self, found: list[torch.Tensor], path: Path) -> None:
        size = sum(tensor.nbytes for tensor in found)
        if size > self._left:
            return
        # Another process of the same training may write the same values at the same time.
        work = path.with_suffix(f".{os.getpid()}")
        # Outputs may share their elements, which safetensors does not take.
        whole = {str(i): t.clone(memory_format=_WHOLE) for i, t in enumerate(found)}
        try:
            write_tensors(whole, work)
            work.replace(path)
        except OSError as error:
            self._left = 0
            work.unlink(missing_ok=True)
            self._say(f"the teacher's values are computed anew in each epoch: {error}")
        else:
            self._left -= size
