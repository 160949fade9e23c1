"""Follows padded positions through a program, and proves that none reaches an output."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.nodes import arguments, input_node, same_size, shape_of, tensors_of
from strop.compiler.ir.pointwise import is_pointwise
from strop.compiler.ir.program import Program
from strop.passes.cleanup.masks import TRUE, Padding, Reader
from strop.passes.ragged.attention import (
    ATTENTION,
    KEYS,
    heads_places,
    is_additive_causal,
    mask_of,
    require_hidden_keys,
)
from strop.passes.ragged.axes import KEPT, LINEARS, Kept
from strop.passes.ragged.bounds import exact, result_bounds, weight_bounds
from strop.passes.ragged.states import (
    CLEAN,
    Bounds,
    Known,
    PaddingInput,
    Places,
    State,
    Unproven,
    as_nodes,
    is_leading,
)

aten = torch.ops.aten
strop = torch.ops.strop
_MIXES = "it mixes positions, padded ones among them"
_DIVIDES = "it takes positions apart, or merges them with another axis"
_DIALECT_POINTWISE = (strop.bias_gelu.default, strop.gated.default)


def is_by_element(target: Any) -> bool:
    """Whether an operator works element by element."""
    return is_pointwise(target) or target in _DIALECT_POINTWISE


class Analysis:
    """What is known of every value, where products with weights see real positions only.

    Attributes:
        states: by value.
        reads: numbers of positions that are read whether they are padded or not.
        starts: the values, [batch, seq, ...], of which products need real positions only.
    """

    def __init__(self, program: Program, padding: PaddingInput, zeros: bool) -> None:
        """Look at the whole program.

        Args:
            program: left as it is.
            padding: what calls positions padding.
            zeros: padded positions of outputs may be anything.

        Raises:
            Unproven: at the first node at which padded positions may be read.
        """
        self.program = program
        self.padding = padding
        self.states: dict[Node, State] = {}
        self.reads: set[int] = set()
        self.starts: list[Node] = []
        self._additive_causal: Node | None = None
        self._weights: dict[Node, Bounds] = {}
        self._masks = Reader(program)
        for node in program.graph.nodes:
            if node.op != "output":
                self.states[node] = self._state_of(node)
        self._require_outputs(zeros)
        if not self.starts:
            raise Unproven("no product with weights works on its positions", padding.mask)
        if self.reads and self._additive_causal is not None:
            raise Unproven(
                "a padded position is read by its number, and sees only padded keys in causal "
                "attention with a mask that is added",
                self._additive_causal,
            )

    def is_start(self, x: Node) -> bool:
        """Whether a value is [batch, seq, ...], with every element computed, padded or not."""
        shape, wanted = shape_of(x), shape_of(self.padding.mask)
        whole = self.states[x].tokens is None and not is_weight_expression(x)
        return whole and len(shape) > 2 and all(map(same_size, shape[:2], wanted))

    def _state_of(self, node: Node) -> State:
        if node is self.padding.mask:
            is_bool = node.meta["val"].dtype == torch.bool
            real = exact(1) if not is_bool else exact(not self.padding.value)
            return State(known={(-2, -1): Known(exact(self.padding.value), real)})
        if node.op != "call_function" or not tensors_of(node):
            return CLEAN
        inputs = [self.states[n] for n in node.all_input_nodes]
        if node.target in LINEARS and self.is_start(input_node(node)):
            self.starts.append(input_node(node))
            return State((-len(shape_of(node)), 1 - len(shape_of(node))))
        if all(state == CLEAN for state in inputs):
            return CLEAN
        return self._rule(node)(node)

    def _rule(self, node: Node) -> Callable[[Node], State]:
        if node.target in ATTENTION:
            return self._attention
        if node.target in KEPT:
            return self._kept
        if is_by_element(node.target):
            return self._by_element
        if node.target is aten.index.Tensor:
            return self._index
        return self._part if node.target is operator.getitem else self._unknown

    def _index(self, node: Node) -> State:
        """``mask[batches, keys]`` with grids of both is the mask as [batch, 1, 1, keys]."""
        meaning = self._masks.meaning(node)
        for atom in meaning if isinstance(meaning, frozenset) else ():
            if isinstance(atom, Padding) and (-2, -1) in self.states[atom.mask].known:
                return State(known={KEYS: self.states[atom.mask].known[-2, -1]})
        return self._unknown(node)

    def _unknown(self, node: Node) -> State:
        if any(self.states[n].tokens for n in node.all_input_nodes):
            raise Unproven("the analysis of padding does not know this operator", node)
        return CLEAN

    def _part(self, node: Node) -> State:
        return self.states[input_node(node)]

    def _attention(self, node: Node) -> State:
        q, k, v = (input_node(node, i) for i in range(3))
        for x in (q, k, v):
            if self.states[x].tokens not in (None, heads_places(x)):
                raise Unproven("positions are not where attention has them", node)
        mask = mask_of(node)
        if self.states[k].tokens or self.states[v].tokens or (mask and self.states[mask].tokens):
            require_hidden_keys(node, self.states[mask] if mask else CLEAN)
            if is_additive_causal(node):
                self._additive_causal = node
        return State(self.states[q].tokens)

    def _kept(self, node: Node) -> State:
        kept, given = KEPT[node.target], arguments(node)
        mains = [n for name in kept.main for n in as_nodes(given[name])]
        if any(self.states[n].tokens for n in node.all_input_nodes if n not in mains):
            raise Unproven("it multiplies positions with each other", node)
        if self._reads_position(node):
            self.reads.add(int(given["index"]))
            return CLEAN
        to = _to(kept, given, mains[0], node)
        why = _DIVIDES if kept.same else _MIXES
        found = [self.states[n].moved(to, why, node) for n in mains]
        tokens = self._common(node, [state.tokens for state in found])
        return State(tokens, found[0].known if kept.same else {})

    def _reads_position(self, node: Node) -> bool:
        """Whether one position is taken out of all, by its number."""
        if node.target is not aten.select.int:
            return False
        x, axis, index = node.args
        assert isinstance(x, Node) and isinstance(axis, int)
        tokens, rank = self.states[x].tokens, len(shape_of(x))
        return tokens is not None and axis % rank - rank == tokens[1] and isinstance(index, int)

    def _by_element(self, node: Node) -> State:
        inputs = [n for n in node.all_input_nodes if tensors_of(n)]
        tokens = self._common(node, [self._whole_tokens(n, node) for n in inputs])
        places = {p for n in inputs for p in self.states[n].known if _is_whole(n, node, p)}
        known = {p: self._known(node, p) for p in sorted(places)}
        fixed = known[tokens].padded if tokens in known else None
        if fixed is not None and fixed[0] == fixed[1]:
            tokens = None  # One number at every padded position, whatever stood there.
        return State(tokens, known)

    def _whole_tokens(self, x: Node, node: Node) -> Places | None:
        tokens = self.states[x].tokens
        if tokens is not None and not _is_whole(x, node, tokens):
            raise Unproven("it repeats positions along an axis of others", node)
        return tokens

    def _common(self, node: Node, found: list[Places | None]) -> Places | None:
        places = {p for p in found if p is not None}
        if len(places) > 1:
            raise Unproven("it pairs positions with each other", node)
        return places.pop() if places else None

    def _known(self, node: Node, places: Places) -> Known:
        def at_padded(value: Any) -> Bounds:
            return self._bounds(value, places, padded=True)

        def at_real(value: Any) -> Bounds:
            return self._bounds(value, places, padded=False)

        return Known(result_bounds(node, at_padded), result_bounds(node, at_real))

    def _bounds(self, value: Any, places: Places, padded: bool) -> Bounds:
        if isinstance(value, (bool, int, float)):
            return exact(value)
        if not isinstance(value, Node) or not tensors_of(value):
            return None
        state = self.states[value]
        if places in state.known:
            return state.known[places].padded if padded else state.known[places].real
        if value not in self._weights:
            true = self._masks.meaning(value) == TRUE
            self._weights[value] = exact(1) if true else weight_bounds(value, self.program)
        return self._weights[value]

    def _require_outputs(self, zeros: bool) -> None:
        for spec, node in zip(self.program.contract.outputs, self.program.outputs):
            tokens = self.states[node].tokens
            if tokens is None:
                continue
            if not zeros:
                raise Unproven(
                    f"the output '{spec.name}' holds padded positions; with zeros=true they are "
                    "zeros",
                    node,
                )
            if not is_leading(tokens, len(shape_of(node))):
                raise Unproven(f"the output '{spec.name}' is not [batch, seq, ...]", node)


def _to(kept: Kept, given: dict[str, Any], x: Node, node: Node) -> Callable[[int], int | None]:
    """Where an operator puts an axis of its argument; axes are counted from the right."""
    rank, made = len(shape_of(x)), kept.origins(given, x, node)
    if len(made) != len(tensors_of(node)[0].shape):
        return lambda axis: None
    places = {origin: i - len(made) for i, origin in enumerate(made) if origin is not None}
    return lambda axis: places.get(axis + rank)


def _is_whole(x: Node, node: Node, places: Places) -> bool:
    """Whether the axes of positions are no longer in the result than in an argument."""
    old, new = shape_of(x), tensors_of(node)[0].shape
    return all(same_size(old[axis], new[axis]) for axis in places)
