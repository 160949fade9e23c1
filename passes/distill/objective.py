"""What a student is trained for: a weighted sum of losses against its teacher's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.fx.node import Node
from torch.nn import functional as F

from strop.compiler.ir.nodes import same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import on_batch
from strop.compiler.rewriting.context import Batch
from strop.compiler.rewriting.context import Loss as HardLoss
from strop.passes.distill.align import Pair
from strop.passes.distill.losses import (
    contrastive,
    hidden_cosine,
    hidden_mse,
    mixture,
    relations,
    same_heads,
    soft_targets,
)
from strop.passes.distill.outputs import Output
from strop.passes.distill.own_loss import OwnLoss, scalar_of
from strop.passes.distill.taps import tapped
from strop.passes.distill.teacher import Teacher
from strop.passes.prune.sparsify import Sparsify

PROJECTION = "projection/"
_TINY = 1e-12


@dataclass(frozen=True)
class Weights:
    """How much each loss counts; 0 leaves it out.

    Attributes:
        soft: the teacher's distribution over classes, for logits and probabilities.
        embedding: squared error and cosine of other outputs.
        contrastive: InfoNCE between embeddings of the rows of a batch, for other outputs.
        hidden: squared error of taps.
        relations: between the places of queries, of keys and of values of attention.
        hard: the user's loss on labels.
        own: a loss of the user's on student and teacher.
    """

    soft: float
    embedding: float
    contrastive: float
    hidden: float
    relations: float
    hard: float
    own: float


@dataclass(frozen=True)
class Sides:
    """What is compared, and how.

    Attributes:
        outputs: of both programs.
        pairs: the taps.
        related: queries, keys and values of attention.
        mask: the input that marks padding, or None.
        temperature: of the soft targets.
        hard: the user's loss, where it counts.
        own: a loss of the user's on student and teacher, where it counts.
        segments: of the student, inside of which values are computed again; 0 keeps all values.
    """

    outputs: Sequence[Output]
    pairs: Sequence[Pair]
    related: Sequence[Pair]
    mask: str | None
    temperature: float
    hard: HardLoss | None
    own: OwnLoss | None
    segments: int


class Objective:
    """The loss of a batch, over copies of the student's weights.

    Attributes:
        parameters: what is trained, by name: the student's weights, and projections of taps under
            names of their own.
        student: the student with its taps, which computes with them.
    """

    def __init__(
        self,
        student: Program,
        teacher: Callable[[Program], Teacher],
        original: Program,
        trained: Sequence[str],
        sides: Sides,
        weights: Weights,
    ) -> None:
        """Tap both programs, and copy what is trained.

        Args:
            student: its weights are left as they are.
            teacher: makes what gives the values of a tapped program.
            original: the program that the student learns from.
            trained: names of the weights that may change.
            sides: what is compared.
            weights: how much it counts.
        """
        self._sides, self._weights = sides, weights
        self.parameters = {n: _leaf(student.weights[n]) for n in trained}
        for name in trained:
            origin = student.origins.get(name)
            if origin is not None and origin.made_by == Sparsify.name:
                _keep_zeros(self.parameters[name])
        every = [*sides.pairs, *sides.related]
        seen = tapped(student, [pair.student for pair in every])
        self._masked = _masked(seen, sides)
        # No gradient is computed for what is not trained.
        fixed = {name: weight.detach() for name, weight in seen.weights.items()}
        self.student = replace(seen, weights=fixed | self.parameters)
        self._teacher = teacher(tapped(original, [pair.teacher for pair in every]))
        for pair in sides.pairs:
            if pair.axis is not None:
                self.parameters[PROJECTION + pair.student] = _projection(*pair.sizes)

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a batch, and its parts before they are weighted."""
        ours = on_batch(self.student, batch, segments=self._sides.segments)
        theirs = self._teacher.values(batch)
        mask = batch[self._sides.mask] if self._sides.mask else None
        masks = [mask if masked else None for masked in self._masked]
        # One after another: outputs, taps, attentions.
        values = iter((s.float(), t.float(), m) for s, t, m in zip(ours, theirs, masks))
        parts: dict[str, list[Tensor]] = {}
        for output, (s, t, m) in zip(self._sides.outputs, values):
            for name, part in self._of_output(output, s, t, m).items():
                parts.setdefault(name, []).append(part)
        for pair, (s, t, m) in zip(self._sides.pairs, values):
            parts.setdefault("hidden", []).append(self._of_tap(pair, s, t, m))
        for _, (s, t, m) in zip(self._sides.related, values):
            parts.setdefault("relations", []).append(relations(*same_heads(s, t), m))
        parts |= {name: [part] for name, part in self._of_user(ours, theirs, batch).items()}
        means = {name: torch.stack(several).mean() for name, several in parts.items()}
        return mixture(means, vars(self._weights)), means

    def _of_output(
        self, output: Output, s: Tensor, t: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """The losses of one output, before they are weighted."""
        weights = self._weights
        found: dict[str, Callable[[], Tensor]] = {}
        if output.kind in ("logits", "probabilities"):
            logits = (_logits(output, s), _logits(output, t))
            soft = partial(soft_targets, *logits, self._sides.temperature, mask)
            found = {"soft": soft}
        elif output.kind == "values":
            found = {"embedding": lambda: _embedding(s, t, mask)}
            if s.ndim > 1:
                found["contrastive"] = lambda: contrastive(_pooled(s, mask), _pooled(t, mask))
        return {name: part() for name, part in found.items() if getattr(weights, name)}

    def _of_user(
        self, ours: Sequence[Tensor], theirs: Sequence[Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """The user's own losses, before they are weighted."""
        student, teacher = (
            {o.name: value for o, value in zip(self._sides.outputs, values)}
            for values in (ours, theirs)
        )
        found = {}
        if self._sides.hard is not None:
            found["hard"] = scalar_of("loss", self._sides.hard, student, batch)
        if self._sides.own is not None:
            found["own"] = scalar_of("own_loss", self._sides.own, student, teacher, batch)
        return found

    def _of_tap(self, pair: Pair, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        if pair.axis is not None:
            projection = self.parameters[PROJECTION + pair.student]
            s = F.linear(s.movedim(pair.axis, -1), projection).movedim(-1, pair.axis)
        return hidden_mse(s, pair.of_teacher(t), mask)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _keep_zeros(leaf: Tensor) -> None:
    """Let no gradient reach the zeros of a weight; AdamW leaves them as they are then."""
    mask = (leaf.detach() != 0).to(leaf.dtype)
    leaf.register_hook(lambda gradient: gradient * mask)


def _projection(ours: int, theirs: int) -> Tensor:
    """A matrix from the student's features to the teacher's, [theirs, ours]."""
    made = torch.empty(theirs, ours)
    torch.nn.init.orthogonal_(made)
    return made.requires_grad_()


def _masked(program: Program, sides: Sides) -> list[bool]:
    """Of which outputs and taps the places are those of the mask, at every size."""
    if sides.mask is None:
        return [False] * len(program.outputs)
    (mask,) = [n for n in program.graph.find_nodes(op="placeholder") if n.target == sides.mask]
    heads = len(program.outputs) - len(sides.related)
    return [_has_places(n, mask, of_heads=i >= heads) for i, n in enumerate(program.outputs)]


def _has_places(node: Node, mask: Node, of_heads: bool) -> bool:
    """Whether a value is [*mask, ...], or [batch, heads, seq, features] of heads."""
    shape, wanted = shape_of(node), shape_of(mask)
    places = (shape[0], shape[2]) if of_heads else shape[: len(wanted)]
    return len(shape) > len(wanted) and same_shape(places, wanted)


def _logits(output: Output, value: Tensor) -> Tensor:
    """Logits with the classes last; those of probabilities are their logarithms."""
    value = value.movedim(output.axis, -1)
    return value.clamp(min=_TINY).log() if output.kind == "probabilities" else value


def _embedding(s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    error = hidden_mse(s, t, mask)
    # The cosine of one number is its sign.
    return error + hidden_cosine(s, t, mask) if s.ndim > 1 and s.shape[-1] > 1 else error


def _pooled(value: Tensor, mask: Tensor | None) -> Tensor:
    """One embedding for each row: the mean over its places that count, [batch, features]."""
    if mask is None:
        return value.flatten(1, -2).mean(1) if value.ndim > 2 else value
    counted = (mask != 0).to(value.dtype).unsqueeze(-1)
    return (value * counted).sum(1) / counted.sum(1).clamp(min=1)
