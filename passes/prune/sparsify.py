"""The pass ``sparsify``: zeros in matrices, in a pattern or anywhere; no weight becomes smaller.

No target of strop computes faster with such zeros. The pass is for weights that other programs
read, and for comparison with structured pruning.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import torch
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.util.errors import UsageError, nearest
from strop.passes.prune.activations import Activations
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.question import Question


@dataclass(frozen=True)
class Sparsify(LearningPass):
    """Set the least important weights of linear layers to zero.

    Attributes:
        pattern: "2:4" keeps N of every M weights that follow one another along the input axis;
            "" drops the share of each matrix, wherever the weights are.
        share: of the weights that go without a pattern, above 0 and below 1.
        importance: "l1", the size of a weight (as ``torch.nn.utils.prune.l1_unstructured``), or
            "activation", its size times the norm of what it is multiplied with (Wanda).
        keep: weights that stay as they are, by name or pattern.
        batches: how many batches of data "activation" looks at.
    """

    name: ClassVar[str] = "sparsify"
    needs: ClassVar[Needs] = ()

    pattern: str = "2:4"
    share: float = 0.5
    importance: Literal["l1", "activation"] = "l1"
    keep: tuple[str, ...] = ()
    batches: int = 32

    def __post_init__(self) -> None:
        """Refuse what is no pattern or no share.

        Raises:
            UsageError: an option is wrong.
        """
        if self.pattern:
            _numbers(self.pattern)
        if not 0 < self.share < 1:
            raise UsageError(f"share is {self.share}; it must be above 0 and below 1")

    def required(self) -> Needs:
        return (("calibration", "train"),) if self.importance == "activation" else ()

    def learn(self, program: Program, context: Context) -> Learned:
        found = dependencies(program)
        norms = self._norms(Question(program, found, (), context, self.batches))
        names = dict.fromkeys(
            str(r.weight.target) for r in found.reads if r.weight.op == "get_attr"
        )
        for one in self.keep:
            if not any(fnmatchcase(name, one) for name in names):
                raise UsageError(f"keep: no weight is '{one}'{nearest(one, list(names))}")
        matrices = {
            name: program.weights[name].detach()
            for name in names
            if program.weights[name].dim() == 2
            and not any(fnmatchcase(name, one) for one in self.keep)
        }
        return Learned(
            {n: w * self._mask(w.abs() * norms.get(n, 1.0)) for n, w in matrices.items()}
        )

    def _norms(self, question: Question) -> dict[str, Tensor]:
        """The norm of what each column of a matrix is multiplied with."""
        if self.importance == "l1":
            return {}
        seen = Activations.of(question)
        return {
            str(r.weight.target): seen.squares[r.value, r.axis].sqrt().float()
            for r in question.found.reads
            if r.weight.op == "get_attr" and r.weight_axis == -1
        }

    def _mask(self, scores: Tensor) -> Tensor:
        """1 where a weight stays, else 0."""
        if self.pattern:
            kept, of = _numbers(self.pattern)
            if scores.shape[1] % of:
                return torch.ones_like(scores)
            rows = scores.reshape(-1, of)
            return _largest(rows, kept).reshape(scores.shape)
        flat = scores.reshape(1, -1)
        return _largest(flat, round(flat.shape[1] * (1 - self.share))).reshape(scores.shape)


def _largest(rows: Tensor, count: int) -> Tensor:
    """1 at the largest values of each row; of equal ones at the first."""
    order = torch.sort(rows, dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(rows).scatter_(1, order, 1.0)


def _numbers(pattern: str) -> tuple[int, int]:
    """N and M of a pattern N:M.

    Raises:
        UsageError: it is none.
    """
    kept, _, of = pattern.partition(":")
    if not (kept.isdigit() and of.isdigit() and 0 < int(kept) < int(of)):
        raise UsageError(f"pattern is '{pattern}'; it must be N:M with N below M, such as 2:4")
    return int(kept), int(of)
