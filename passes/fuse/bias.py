"""Removes additions of biases: into an earlier norm, or, for keys of an attention, entirely."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arg, arguments, input_node, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss, is_weight
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten
strop = torch.ops.strop

_NORM_BIAS = 3  # The place of the bias in both layer_norm and skip_layer_norm.


class BiasIntoNorm(Rule):
    """Move b of ``norm(linear(x, w, b) + s)`` into the norm that computes s.

    s must be the output of a norm whose other users are linear layers. The bias of that norm
    becomes ``beta + b``; the bias of every linear layer that reads s becomes ``bias - weight b``,
    so that its output does not change.
    """

    name = "bias-into-norm"
    roots = (strop.skip_layer_norm.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        for linear, stream in (root.args[:2], root.args[1::-1]):
            if linear.target is aten.linear.default:  # type: ignore[union-attr]
                return self._match(root, linear, stream)  # type: ignore[arg-type]
        return Miss("neither summand is a linear layer", root)

    def _match(self, root: Node, linear: Node, stream: Node) -> Match | Miss:
        bias = arguments(linear)["bias"]
        if not is_weight(bias) or len(linear.users) > 1:
            return Miss("the linear layer has no bias of its own", linear, NEAR)
        norm = _norm_of(stream)
        beta = None if norm is None else arguments(norm)["bias"]
        if beta is None:
            return Miss("the other summand is not the result of a norm with a bias", stream, NEAR)
        if not same_shape(shape_of(beta), shape_of(bias)):
            return Miss("the norm is over several axes, or the bias is one number", stream, NEAR)
        readers = [user for user in stream.users if user is not root]
        for reader in readers:
            if reader.target is not aten.linear.default or arg(reader, 0) is not stream:
                return Miss("the norm is read by more than linear layers", reader, NEAR)
        bound = {"linear": linear, "bias": bias, "norm": norm, "beta": beta, "readers": readers}
        return Match(root, bound, [])

    def rewrite(self, match: Match, build: Builder) -> None:
        bias, norm = match["bias"], match["norm"]
        early = Builder(build.program, norm, self.name)
        beta = early.call(aten.add.Tensor, match["beta"], bias)
        norm.update_arg(_NORM_BIAS, beta)
        early.changed(norm)
        # Before the loop: this linear layer may read the stream too, and then needs the correction.
        _drop_bias(match["linear"], build)
        for reader in match["readers"]:
            _take_back(reader, bias, Builder(build.program, reader, self.name))


def _norm_of(stream: Node) -> Node | None:
    """The norm whose result ``stream`` is."""
    if stream.target is operator.getitem and arg(stream, 1) == 0:
        stream = input_node(stream)
        return stream if stream.target is strop.skip_layer_norm.default else None
    return stream if stream.target is aten.layer_norm.default else None


def _take_back(reader: Node, bias: Node, build: Builder) -> None:
    values = arguments(reader)
    surplus = build.call(aten.mv.default, values["weight"], bias)
    if values["bias"] is None:
        corrected = build.call(aten.neg.default, surplus)
    else:
        corrected = build.call(aten.sub.Tensor, values["bias"], surplus)
    reader.args = (values["input"], values["weight"], corrected)


def _drop_bias(linear: Node, build: Builder) -> None:
    values = arguments(linear)
    linear.args = (values["input"], values["weight"])
    linear.kwargs = {}
    build.changed(linear)


class KeyBias(Rule):
    """Drop the bias of the keys: it adds one number to all scores of a query.

    Softmax does not change when a constant is added to all its inputs; a tanh before it does.
    """

    name = "key-bias"
    roots = (strop.attention.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        key = input_node(root, 1)
        if key.target is not aten.linear.default:
            return Miss("the keys are not the result of a linear layer", key)
        if arguments(key)["bias"] is None:
            return Miss("the keys have no bias", key)
        if arguments(root)["softcap"]:
            return Miss("the scores are bounded by a tanh", root, NEAR)
        if len(key.users) > 1 or any(root.args[i] is key for i in (0, 2)):
            return Miss("the keys are used elsewhere too", key, NEAR)
        return Match(root, {"key": key}, [])

    def rewrite(self, match: Match, build: Builder) -> None:
        bias = arguments(match["key"])["bias"]
        _drop_bias(match["key"], build)
        build.program.erase_dead([bias])


@dataclass(frozen=True)
class FoldBiases(RulePass):
    """Fold the bias before a residual norm into the norm before it, and drop that of the keys."""

    name = "biases"
    after = ("residuals",)
    # A linear layer whose bias was moved away cannot take another bias.
    before = ("bias-gelu",)

    def rules(self) -> Sequence[Rule]:
        # The first rule may give the keys a bias; the second removes it.
        return (BiasIntoNorm(), KeyBias())
