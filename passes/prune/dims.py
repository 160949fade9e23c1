"""The structure of an axis: positions that can only be removed together with others.

An axis of n positions is a *leaf* until the graph shows more of it. A view that cuts an axis of 384
into 12 heads of 32 makes it a *product* of two leaves; a concatenation makes it a *sum*, parts one
after another. Axes that an operator pairs position by position are *unified*: they share leaves
from then on. A leaf is the unit of pruning: dropping a position of it drops what follows from that
on every axis that holds the leaf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch

from strop.compiler.ir.nodes import expression

Size = Any
"""An int, or a sympy expression of the dynamic dims."""


@dataclass(eq=False)
class Dim:
    """A leaf, a product or a sum.

    Attributes:
        size: positions.
        parts: factors from the outermost to the innermost, or the parts of a sum in order.
        kind: "leaf", "product" or "sum".
        became: what a leaf turned out to be; look through it with ``of``.
        frozen: why no position may be dropped, by reason.
        inexact: operators for which a dropped position is not the same as one of zeros.
        roles: what operators use the leaf as.
    """

    size: Size
    parts: tuple[Dim, ...] = ()
    kind: str = "leaf"
    became: Dim | None = None
    frozen: dict[str, None] = field(default_factory=dict)
    inexact: dict[str, None] = field(default_factory=dict)
    roles: dict[str, None] = field(default_factory=dict)

    @property
    def of(self) -> Dim:
        """What this is now."""
        found = self
        while found.became is not None:
            found = found.became
        if found is not self:
            self.became = found
        return found


class DoNotFit(Exception):
    """Two structures cut the same positions in different places."""


def leaf(size: int | torch.SymInt | Size) -> Dim:
    """An axis of which nothing more is known; a unit if it has one position."""
    known = expression(size)
    if not isinstance(known, int) and known.is_Integer:
        known = int(known)
    return product(()) if known == 1 else Dim(known)


def product(factors: Iterable[Dim]) -> Dim:
    """An axis that counts through several others, the last of them fastest."""
    flat = tuple(_flat(factors, "product"))
    if len(flat) == 1:
        return flat[0]
    size: Size = 1
    for one in flat:
        size = size * one.size
    return Dim(size, flat, "product")


def total(parts: Iterable[Dim]) -> Dim:
    """An axis that holds others one after another."""
    flat = tuple(_flat(parts, "sum"))
    if len(flat) == 1:
        return flat[0]
    return Dim(sum(one.size for one in flat), flat, "sum")


def leaves(*dims: Dim) -> Iterator[Dim]:
    """The leaves of structures, in order; one that occurs twice comes twice."""
    for one in dims:
        dim = one.of
        if dim.kind == "leaf":
            yield dim
        else:
            yield from leaves(*dim.parts)


def freeze(reason: str, *dims: Dim) -> None:
    """Say that no position may be dropped from these."""
    for one in leaves(*dims):
        one.frozen.setdefault(reason)


def factors(dim: Dim) -> list[Dim]:
    """What an axis is the product of; one that is no product is its only factor."""
    return list(_flat([dim], "product"))


def unify(a: Dim, b: Dim) -> None:
    """Say that two axes are the same, position by position.

    Raises:
        DoNotFit: they are cut in different places; parts may have been unified already.
    """
    left, right = factors(a), factors(b)
    while left and right:
        x, y = left[0].of, right[0].of
        if x.kind == "product" or y.kind == "product":
            left[:1], right[:1] = factors(x), factors(y)
        elif x is y or x.size == y.size:
            _same(x, y)
            del left[0], right[0]
        elif _ratio(x.size, y.size) is not None:
            left[:1] = _cut(x, y.size)
        else:
            right[:1] = _cut(y, x.size)
    if left or right:
        raise DoNotFit


def cut(dim: Dim, sizes: Sequence[Size]) -> list[Dim]:
    """The axes that counting through ``dim`` gives, as ``view`` does.

    Raises:
        DoNotFit: the sizes cut across the structure.
    """
    wanted = [leaf(size) for size in sizes]
    unify(dim, product(wanted))
    return wanted


def slices(dim: Dim, sizes: Sequence[int]) -> list[Dim]:
    """The parts of these sizes, one after another.

    Raises:
        DoNotFit: a part ends within a product.
    """
    wanted = [leaf(size) for size in sizes]
    _same_sums([dim], wanted)
    return wanted


def size_after(dim: Dim, kept: Mapping[Dim, Sequence[int]]) -> Size:
    """The size of an axis of which leaves keep these positions."""
    one = dim.of
    if one.kind == "leaf":
        return len(kept[one]) if one in kept else one.size
    sizes = [size_after(part, kept) for part in one.parts]
    if one.kind == "sum":
        return sum(sizes)
    size: Size = 1
    for each in sizes:
        size = size * each
    return size


def positions_after(dim: Dim, kept: Mapping[Dim, Sequence[int]]) -> torch.Tensor:
    """The old position of every position that an axis keeps; int64, in order."""
    one = dim.of
    if one.kind == "leaf":
        return torch.as_tensor(kept[one] if one in kept else range(int(one.size)))
    if one.kind == "sum":
        starts = [0]
        for part in one.parts:
            starts.append(starts[-1] + int(part.size))
        return torch.cat([positions_after(p, kept) + s for p, s in zip(one.parts, starts)])
    found = torch.zeros(1, dtype=torch.int64)
    for part in one.parts:
        found = (found[:, None] * int(part.size) + positions_after(part, kept)).flatten()
    return found


def _flat(dims: Iterable[Dim], kind: str) -> Iterator[Dim]:
    """The parts of structures of one kind, however deep they lie; others are their only part."""
    for one in dims:
        dim = one.of
        if dim.kind == kind:
            yield from _flat(dim.parts, kind)
        else:
            yield dim


def _ratio(whole: Size, part: Size) -> Size | None:
    """``whole / part`` if ``part`` divides it and it is more than one."""
    if isinstance(whole, int) and isinstance(part, int):
        return whole // part if part and whole % part == 0 and whole > part else None
    ratio = sympy.cancel(sympy.sympify(whole) / part) if part != 0 else sympy.nan
    if not ratio.is_polynomial() or any(not c.is_Integer for c in _coefficients(ratio)):
        return None
    return int(ratio) if ratio.is_Integer else ratio


def _coefficients(ratio: Any) -> list[Any]:
    return sympy.Poly(ratio, *ratio.free_symbols).coeffs() if ratio.free_symbols else [ratio]


def _cut(dim: Dim, first: Size) -> list[Dim]:
    """Cut a leaf into a factor of this size and the rest."""
    rest = _ratio(dim.size, first)
    if dim.kind != "leaf" or rest is None:
        raise DoNotFit
    parts = (Dim(first), Dim(rest))
    _become(dim, Dim(dim.size, parts, "product"))
    return list(parts)


def _same(x: Dim, y: Dim) -> None:
    """Unify two axes of one size, neither of them a product."""
    if x is y:
        return
    if x.kind == "leaf":
        _become(x, y)
    elif y.kind == "leaf":
        _become(y, x)
    else:
        _same_sums([x], [y])


def _same_sums(left: list[Dim], right: list[Dim]) -> None:
    """Unify parts that follow one another."""
    left, right = list(_flat(left, "sum")), list(_flat(right, "sum"))
    while left and right:
        x, y = left[0].of, right[0].of
        if x.kind == "sum" or y.kind == "sum":
            left[:1], right[:1] = list(_flat([x], "sum")), list(_flat([y], "sum"))
        elif x is y or x.size == y.size:
            unify(x, y)
            del left[0], right[0]
        elif x.size > y.size:
            left[:1] = _divide(x, y.size)
        else:
            right[:1] = _divide(y, x.size)
    if left or right:
        raise DoNotFit


def _divide(dim: Dim, first: int) -> list[Dim]:
    """Divide a leaf into a part of this size and the rest."""
    if dim.kind != "leaf" or not isinstance(dim.size, int) or first <= 0:
        raise DoNotFit
    parts = (leaf(first), leaf(dim.size - first))
    _become(dim, Dim(dim.size, parts, "sum"))
    return list(parts)


def _become(one: Dim, other: Dim) -> None:
    """A leaf is the same as another structure from now on, with all that is known of it."""
    one.became = other
    for each in leaves(other):
        each.frozen |= one.frozen
        each.inexact |= one.inexact
        each.roles |= one.roles
