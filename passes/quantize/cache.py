"""Caches of keys and values in int8: a quarter of the memory, and of what each token reads."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.caches import why_not_stored
from strop.compiler.ir.contract import DTYPE_NAMES, Stored
from strop.compiler.ir.dialect.attention import split_heads
from strop.compiler.ir.nodes import arg, arguments, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.ir.stored import storing
from strop.compiler.rewriting.context import Context, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibration import Seeing, observe
from strop.passes.quantize.grid import Grid

_CACHED = torch.ops.strop.cached_attention.default
# Of the largest number of its head, each channel is taken to reach this share.
_LEAST = 1 / 64
# Of a call: the cache, what is added to it, and the result that continues it.
_CACHES = (("past_k", "k", 1), ("past_v", "v", 2))


@dataclass(frozen=True)
class QuantizeCache(LearningPass):
    """Keep keys and values in int8, with a scale for each channel of each head.

    Scales are fixed: the largest number of each channel on the calibration data, and some room.
    Inputs and outputs of the program become int8; everything else stays as it is.

    Attributes:
        room: how many times the largest number that was seen is kept; larger ones are cut off.
        batches: how many to calibrate on at most.
    """

    name = "quantize-cache"
    quantizes = True
    needs: ClassVar[Needs] = (("calibration", "train"),)
    after = ("cached-attention",)

    room: float = 1.25
    batches: int = 64

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        if not 0 < self.room < float("inf"):
            raise UsageError(f"room is {self.room}; it must be above 0")
        if self.batches < 1:
            raise UsageError(f"batches is {self.batches}; it must be 1 or more")

    def refused_by(self, target: Target) -> str | None:
        if target.int8_caches:
            return None
        return f"{target.name} has no attention that reads a cache of int8"

    def learn(self, program: Program, context: Context) -> Learned:
        """Find scales: by name of a cache, [1, heads, 1, size]."""
        tops: dict[Node, _Tops] = {}
        places: list[tuple[Node, Seeing]] = []
        for call in _quantizable(program, Log()):
            given = arguments(call)
            for past, new, _ in _CACHES:
                cache = given[past]
                tops[cache] = _Tops(*(int(s) for s in shape_of(cache)[1::2]))
                places += [(cache, tops[cache]), (given[new], tops[cache])]
        if places:
            observe(program, places, context, self.batches)
        return Learned({str(cache.target): self._scale(one) for cache, one in tops.items()})

    def _scale(self, tops: _Tops) -> Tensor:
        # A channel that the data hardly moved may be moved by other data.
        most = tops.most.maximum(tops.most.amax(1, keepdim=True) * _LEAST) * self.room
        return Grid().parameters(-most, most)[0][None, :, None]

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Give every call its scales, and caches their new dtype."""
        outputs = dict(zip(program.outputs, (spec.name for spec in program.contract.outputs)))
        kept: dict[str, Stored] = {}
        for call in _quantizable(program, log):
            log.rewrote(self.name, call)
            kept |= _keep_in_int8(call, program, outputs, learned.tensors)
        program.contract = storing(program.contract, torch.int8, kept)


class _Tops:
    """Sees keys or values, packed or split by heads.

    Attributes:
        most: the largest magnitude in each channel, [heads, size].
    """

    def __init__(self, heads: int, size: int) -> None:
        self.most = torch.zeros(heads, size)

    def add(self, values: Tensor) -> None:
        """See those of one more batch: [batch, places, heads*size] or [batch, heads, places, size].

        Caches that hold nothing yet are not shown.
        """
        split = values if values.dim() == 4 else split_heads(values, len(self.most))
        self.most = torch.maximum(self.most, split.abs().amax((0, 2)))


def _quantizable(program: Program, log: Log) -> list[Node]:
    """The calls whose caches are inputs in float32; why others are left is noted."""
    found, outputs = [], set(program.outputs)
    for call in program.find(_CACHED):
        reason = why_not_stored(call, outputs)
        if reason is None:
            found.append(call)
        else:
            log.missed(QuantizeCache.name, call, Miss(reason, call, NEAR))
    return found


def _keep_in_int8(
    call: Node, program: Program, outputs: Mapping[Node, str], scales: Mapping[str, Tensor]
) -> dict[str, Stored]:
    """Make one call read and continue caches in int8; how they are kept, by input and output."""
    build, given = Builder(program, call, QuantizeCache.name), arguments(call)
    longer = {arg(user, 1): outputs.get(user) for user in call.users}
    kept: dict[str, Stored] = {}
    for past, new, result in _CACHES:
        cache, scale = given[past], scales[str(given[past].target)]
        given[f"{new}_scale"] = build.weight(f"{cache.target}.scale", scale, ())
        with cache.meta["val"].fake_mode:
            cache.meta["val"] = cache.meta["val"].to(torch.int8)
        stored = Stored(DTYPE_NAMES[torch.float32], tuple(scale.flatten().tolist()))
        kept |= {str(cache.target): stored, str(longer[result]): stored}
    made = build.call(_CACHED, *given.values())
    for user in list(call.users):
        user.replace_all_uses_with(build.call(operator.getitem, made, arg(user, 1)))
        program.graph.erase_node(user)
    program.graph.erase_node(call)
    return kept
