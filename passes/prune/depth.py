"""The pass ``drop-layers``: leave out whole blocks that change their input least."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.nodes import same_shape, tensors_of
from strop.compiler.ir.printer import module_path
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches, on_batch
from strop.compiler.rewriting.context import Context, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError

_NUMBERED = re.compile(r"^(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class Block:
    """A layer of the model as a part of the graph.

    Attributes:
        path: of its module, such as ``encoder.layer.3``.
        nodes: what it computes.
        reads: the value that flows into it.
        gives: the value that flows out, of the same type.
        reason: why it cannot be left out; empty where it can.
    """

    path: str
    nodes: tuple[Node, ...]
    reads: Node | None
    gives: Node | None
    reason: str = ""


def blocks(program: Program) -> list[Block]:
    """The numbered modules of a program, outermost ones, in program order."""
    members: dict[str, list[Node]] = {}
    for node in program.calls():
        numbered = _NUMBERED.match(f"{module_path(node) or ''}")
        if numbered:
            members.setdefault(numbered.group(1), []).append(node)
    return [_block(path, nodes, program) for path, nodes in members.items()]


def _block(path: str, nodes: Sequence[Node], program: Program) -> Block:
    inside = set(nodes)
    gives = [n for n in nodes if any(user not in inside for user in n.users)]
    found = Block(path, tuple(nodes), None, gives[0] if len(gives) == 1 else None)
    if found.gives is None:
        return _refused(found, f"{len(gives)} of its values are used outside of it")
    streams = [n for n in _read(nodes) if _alike(n, found.gives)]
    if len(streams) != 1:
        return _refused(found, f"{len(streams)} values of the type of its result flow into it")
    return Block(path, found.nodes, streams[0], found.gives)


def _refused(block: Block, reason: str) -> Block:
    return Block(block.path, block.nodes, block.reads, block.gives, reason)


def _read(nodes: Sequence[Node]) -> Iterator[Node]:
    """Values that a part of the graph reads and that are no weights, each once."""
    inside = set(nodes)
    read = dict.fromkeys(n for node in nodes for n in node.all_input_nodes)
    return (n for n in read if n not in inside and n.op != "get_attr")


def _alike(a: Node, b: Node) -> bool:
    """Whether two values are of one type."""
    left, right = tensors_of(a), tensors_of(b)
    if len(left) != 1 or len(right) != 1 or left[0].dtype != right[0].dtype:
        return False
    return same_shape(left[0].shape, right[0].shape)


@dataclass(frozen=True)
class DropLayers(LearningPass):
    """Leave out whole layers; what flows into one flows on unchanged.

    Attributes:
        count: how many layers go.
        importance: "influence" is 1 - cosine of what flows in and out, on calibration data (block
            influence: Men et al., ShortGPT, 2024); "first" keeps the first ones; "alternate" drops
            every second one, from the last on.
        keep: paths of layers that stay.
        batches: how many batches of data to look at.
    """

    name: ClassVar[str] = "drop-layers"
    needs: ClassVar[Needs] = ()

    count: int = 1
    importance: Literal["influence", "first", "alternate"] = "influence"
    keep: tuple[str, ...] = ()
    batches: int = 32

    def required(self) -> Needs:
        return (("calibration", "train"),) if self.importance == "influence" else ()

    def learn(self, program: Program, context: Context) -> Learned:
        every = blocks(program)
        free = [b for b in every if not b.reason and b.path not in self.keep]
        if not 0 < self.count <= len(free):
            told = "".join(f"\n  {b.path}: {b.reason}" for b in every if b.reason)
            raise UsageError(
                f"pass '{self.name}': count is {self.count}, and {len(free)} layers can go" + told
            )
        scores = self._scores(free, program, context)
        gone = sorted(range(len(free)), key=lambda i: (scores[i], -i))[: self.count]
        return Learned(facts={"dropped": [free[i].path for i in sorted(gone)]})

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        dropped = set(learned.facts["dropped"])
        instead: dict[Node, Node] = {}  # of what a dropped block gives
        for block in [b for b in blocks(program) if b.path in dropped]:
            assert block.reads is not None and block.gives is not None
            reads = instead.get(block.reads, block.reads)
            block.gives.replace_all_uses_with(reads)
            instead[block.gives] = reads
            program.erase_dead([block.gives])
            log.rewrote(self.name, reads)

    def _scores(self, free: list[Block], program: Program, context: Context) -> list[float]:
        if self.importance == "first":
            return [float(-i) for i in range(len(free))]
        if self.importance == "alternate":
            return [float((len(free) - 1 - i) % 2) for i in range(len(free))]
        return _influence(free, program, context, self.batches)


def _influence(
    free: Sequence[Block], program: Program, context: Context, batches: int
) -> list[float]:
    """1 minus the mean cosine between what flows into a block and out of it."""
    wanted = {node for b in free for node in (b.reads, b.gives)}
    cosines: list[list[Tensor]] = [[] for _ in free]
    for batch in first_batches(context, batches):
        seen: dict[Node, Tensor] = {}

        def watch(node: Node, value: Tensor, seen: dict[Node, Tensor] = seen) -> None:
            if node in wanted:
                seen[node] = value.detach()

        with torch.no_grad():
            on_batch(program, batch, watch=watch)
        for block, found in zip(free, cosines):
            assert block.reads is not None and block.gives is not None
            pair = seen[block.reads].flatten(0, -2), seen[block.gives].flatten(0, -2)
            found.append(torch.nn.functional.cosine_similarity(*pair).mean())
    return [1 - float(torch.stack(found).mean()) for found in cosines]
