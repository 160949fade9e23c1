"""``einsum`` of two values that is a batched matrix product becomes ``matmul``."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder, reordered
from strop.compiler.ir.nodes import arg, same_size, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten


@dataclass(frozen=True)
class _Product:
    """The letters of an equation by their place in the product [batch, a, k] [batch, k, b]."""

    batch: str
    a: str
    k: str
    b: str


class EinsumProduct(Rule):
    """``einsum("bqhd,bkhd->bhqk", x, y)``: one axis of each is summed, one of each stays."""

    name = "einsum-product"
    roots = (aten.einsum.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arg(root, 1)
        inputs, _, result = _without_dots(str(arg(root, 0)).replace(" ", ""), values).partition(
            "->"
        )
        terms = inputs.split(",")
        if len(values) != 2 or "." in inputs or not result:
            return Miss("the equation is not of two values with all their axes named", root)
        if any(len(set(term)) < len(term) for term in (*terms, result)):
            return Miss("the equation takes a diagonal", root, NEAR)
        product = _product(terms[0], terms[1], result)
        if product is None:
            return Miss("the equation is not a product of matrices", root, NEAR)
        sizes = [dict(zip(term, shape_of(x))) for term, x in zip(terms, values)]
        if not all(same_size(sizes[0][n], sizes[1][n]) for n in product.batch + product.k):
            return Miss("an axis of the equation is repeated", root, NEAR)
        bound = {"terms": terms, "values": values, "result": result, "product": product}
        return Match(root, bound, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        product, (x, y), (first, second) = match["product"], match["values"], match["terms"]
        left = reordered(x, _places(product.batch + product.a + product.k, first), build)
        right = reordered(y, _places(product.batch + product.k + product.b, second), build)
        made = build.call(aten.matmul.default, left, right)
        order = _places(match["result"], product.batch + product.a + product.b)
        return reordered(made, order, build)


def _without_dots(equation: str, values: list[Node]) -> str:
    """The equation with letters for the axes that ``...`` stands for, the same in all terms."""
    terms = equation.partition("->")[0].split(",")
    counts = {len(shape_of(x)) - len(t.replace("...", "")) for t, x in zip(terms, values)}
    if len(counts) != 1 or equation.count("...") != len(terms) + 1:
        return equation
    unused = [letter for letter in ascii_uppercase if letter not in equation]
    return equation.replace("...", "".join(unused[: counts.pop()]))


def _product(first: str, second: str, result: str) -> _Product | None:
    both = [n for n in first if n in second]
    batch = "".join(n for n in result if n in both)
    k = "".join(n for n in both if n not in result)
    a, b = ("".join(n for n in term if n not in both) for term in (first, second))
    matrices = len(k) == len(a) == len(b) == 1
    return _Product(batch, a, k, b) if matrices and a in result and b in result else None


def _places(letters: str, term: str) -> list[int]:
    return [term.index(letter) for letter in letters]
