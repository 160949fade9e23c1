"""Integers that no float holds: nothing may compute them in floats on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_lowering import Wrapped, lowered, session
from torch import Tensor

from strop.compiler.util.errors import UnsupportedError

EDGES = [2**24 + 1, 2**53 + 1, 2**62 + 3, 7, 3, 1, -1, -7, -(2**24) - 1, -(2**53) - 1, -(2**62) - 3]
A = torch.tensor(EDGES)
B = torch.tensor([3, -3, 2**31 + 1, 2, -2, 7, 5, 2**53 + 1, 7, 2**31, -5])
Function = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]

EXACT: dict[str, Function] = {
    "arithmetic": lambda a, b: (a + b, a - b, a * b, a.abs(), -a, a.sign()),
    "division": lambda a, b: (
        a // b, a % b, torch.fmod(a, b), torch.div(a, b, rounding_mode="trunc"),
        a // 3, a % -3, torch.fmod(a, 3),
    ),
    "powers": lambda a, b: (a**2, a**3, a**5, torch.pow(a, b % 70), torch.pow(3, b % 50)),
    "comparison": lambda a, b: (
        a < b, a == a + 1, a >= b, torch.maximum(a, b), torch.minimum(a, b),
        a.clamp(-(2**53) - 1, 2**53 + 1), a > 2**53, torch.isin(a, b),
    ),
    "reduction": lambda a, b: (
        a.sum(), a.sum(0, keepdim=True), a.amax(), a.amin(), a.max(0)[0], a.argmax(), a.argmin(),
        a.cumsum(0), a.cummax(0)[0], a.median(), a.diff(),
    ),
    "order": lambda a, b: (
        a.sort()[0], a.topk(3)[0], a.sort()[1], a.kthvalue(4)[0],
        torch.searchsorted(a.sort()[0], b),
    ),
    "selection": lambda a, b: (
        torch.where(a > b, a, 2**53 + 1), a.masked_fill(a < 0, 2**62 + 1), a[b % 11],
        torch.full_like(a, 2**62 + 1), a.scatter_add(0, b % 11, a), a.roll(1), a.flip(0),
    ),
    "bits": lambda a, b: (a & b, a | b, a ^ b, ~a),
    "products": lambda a, b: (
        a.view(1, -1) @ b.view(-1, 1), torch.addmm(a[:1, None], a[None], b[:, None], beta=3),
        a.prod(), a.prod(0, keepdim=True), a[:1].prod(), a[:0].prod(), a[:7].cumprod(0),
        a[:10].view(5, 2).prod(0), a[:10].view(5, 2).prod(), a[:10].view(2, 5).cumprod(1),
        a.int().prod(), a[0].prod(), a[0].prod(0), a.int().prod(dtype=torch.int32),
    ),
    "divisors": lambda a, b: (
        torch.gcd(a, b), torch.lcm(a // 2**40, b // 2**40), torch.gcd(a, a * 0), torch.gcd(a, a),
        torch.gcd(a[:5, None], b[:4]), torch.lcm(a * 0, b), torch.gcd(a.int(), b.int()),
        torch.gcd(torch.tensor(7540113804746346429), torch.tensor(4660046610375530309) + 0 * a),
    ),
    "angles": lambda a, b: (a.angle(), a.int().angle(), (a > b).angle(), (a / 3).angle()),
    "against floats": lambda a, b: (a > 2.0**24, a == 2.0**53, a / b, a * 0.5, a.float(), a + 1.5),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_integers_stay_exact(name: str) -> None:
    function = EXACT[name]
    run = session(lowered(function, [A, B], {}))
    for a, b in ((A, B), (A.flip(0), B.flip(0))):
        got = run.run(None, {"a": a.numpy(), "b": b.numpy()})
        wanted = Wrapped(function)(a, b)
        for place, (found, want) in enumerate(zip(got, wanted, strict=True)):
            assert torch.equal(torch.from_numpy(found), want), f"result {place}"


@pytest.mark.parametrize("function", [lambda a: a.prod(0), lambda a: a.cumprod(0)])
def test_products_along_a_dynamic_axis_are_refused_by_name(function: Function) -> None:
    with pytest.raises(UnsupportedError, match="a product of integers along a dynamic axis"):
        lowered(function, [A[:3]], {"a": {0: "n"}})
