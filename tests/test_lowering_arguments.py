"""Rows of the lowering table over the arguments that their operators take."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from test_lowering import Function, agree, bools, ints, positive, session, x
from test_lowering_rows import (
    CUBE,
    MATRIX,
    TRUTH_CUBE,
    TRUTHS,
    WHOLE,
    Case,
    lowered,
    operators,
    together,
)
from torch import Tensor

from strop.compiler.util.errors import UnsupportedError

aten, prims, strop = torch.ops.aten, torch.ops.prims, torch.ops.strop
OTHER, WIDE, POSITIVE = x(4, 6, seed=1), 5 * x(4, 6, seed=2), positive(4, 6)
SIGNED = torch.tensor([[-7.0, -1.5, -0.0, 0.5, 1.5, 7.0], [3.0, -3.0, 2.5, -2.5, 1.0, -1.0]] * 2)
DIVISORS = torch.tensor([[2.0, -2.0, 1.5, -1.5, -3.0, 3.0]] * 4)
NARROW, NEXT = WHOLE.int(), ints(4, 6).flip(0)
SIGNAL, IMAGE, VOLUME = x(4, 6, 9), x(4, 6, 9, 8), x(4, 2, 5, 6, 7)


def kernel(*shape: int) -> Tensor:
    """Weights that are made within a captured function, which can hold no generator."""
    size = math.prod(shape)
    return torch.linspace(-size, size, size).sin().view(shape) / math.sqrt(math.prod(shape[1:]))


pytestmark = pytest.mark.usefixtures("rows_only")

ACTIVATIONS: dict[str, Case] = {
    "elu": (lambda a: F.elu(a, 0.5), (WIDE,)),
    "hardtanh": (lambda a: F.hardtanh(a, -2.0, 3.0), (WIDE,)),
    "relu6": (F.relu6, (WIDE,)),
    "leaky relu": (lambda a: F.leaky_relu(a, 0.3), (WIDE,)),
    "hardsigmoid": (F.hardsigmoid, (WIDE,)),
    "glu of the second axis": (lambda a: F.glu(a, 1), (WIDE,)),
    "softplus": (lambda a: F.softplus(a, 2.0, 3.0), (WIDE,)),
    "softplus of halves": (lambda a: F.softplus(a, 0.5), (WIDE,)),
    "softplus of tens": (lambda a: F.softplus(10 * a), (WIDE,)),
    "prelu of channels": (lambda a: F.prelu(a, SLOPES), (SIGNAL,)),
    "prelu of one slope": (lambda a: F.prelu(a, SLOPES[1:2]), (SIGNAL,)),
    "prelu of a slope without axes": (lambda a: F.prelu(a, SLOPES[1]), (IMAGE,)),
    "prelu of images": (lambda a: F.prelu(a, SLOPES), (IMAGE,)),
    "prelu of rows": (lambda a: F.prelu(a, SLOPES), (WIDE,)),
}
SLOPES = torch.linspace(-1, 1, 6)


def test_activations() -> None:
    together(ACTIVATIONS)


@pytest.mark.parametrize(("threshold", "chosen"), [(16.9, True), (17.0, False), (20.0, False)])
def test_softplus_is_its_argument_from_a_threshold_on(threshold: float, chosen: bool) -> None:
    model = lowered(lambda a: F.softplus(a, threshold=threshold), (MATRIX,))
    assert ("Where" in operators(model)) == chosen


FEWEST: dict[str, tuple[Function, tuple[Tensor, ...], list[str]]] = {
    "a square": (lambda a: a**2, (MATRIX,), ["Mul"]),
    "a root": (lambda a: a**0.5, (POSITIVE,), ["Sqrt"]),
    "a sum": (lambda a, b: torch.add(a, b, alpha=1), (MATRIX, OTHER), ["Add"]),
    "softplus": (F.softplus, (MATRIX,), ["Softplus"]),
    "no padding": (lambda a: F.pad(a, (0, 0)) + 1, (MATRIX,), ["Add"]),
    "an expansion to itself": (lambda a: a.expand(4, 6) + 1, (MATRIX,), ["Add"]),
    "a slice of all": (lambda a: a[:, 0:6] + 1, (MATRIX,), ["Add"]),
    "a squeeze of none": (lambda a: a.squeeze(1) + 1, (MATRIX,), ["Add"]),
    "one part": (lambda a: a.split(6, 1)[0] + 1, (MATRIX,), ["Add"]),
    "one tensor put together": (lambda a: torch.cat([a]) + 1, (MATRIX,), ["Add"]),
    "a cast to what it is": (lambda a: a.float() + 1, (MATRIX,), ["Add"]),
    "biased variance": (
        lambda a: a.var(1, correction=0), (MATRIX,), ["ReduceMean", "Sub", "Mul", "ReduceMean"],
    ),
    "the whole of a source": (
        lambda a, i: a.scatter_add(1, i, a), (MATRIX, ints(4, 6, low=0)), ["ScatterElements"],
    ),
    "a factor of two": (
        lambda a: F.interpolate(a, scale_factor=2.0), (IMAGE,), ["Resize"],
    ),
    "twice the size": (lambda a: F.interpolate(a, size=(18, 32)), (IMAGE,), ["Resize"]),
    "an index of one axis": (lambda a: a[:, torch.tensor([1, 0])], (CUBE,), ["Gather"]),
    "a mask of rows": (lambda a: a[:, torch.tensor([True, False, True])], (CUBE,), ["Compress"]),
    "a write by a mask": (
        lambda a, m: a.index_put((m,), torch.tensor(2.0)), (MATRIX, TRUTHS), ["Where"],
    ),
    "slopes of columns": (lambda a: F.prelu(a, SLOPES), (MATRIX,), ["PRelu"]),
    "a whole mask": (
        lambda q, m: F.scaled_dot_product_attention(q, q, q, m),
        (x(2, 4, 3, 8), bools(3, 3)),
        ["Where", "Attention"],
    ),
    "a product of equal batches": (
        lambda a, b: torch.baddbmm(a, b, b.mT), (x(4, 3, 3), CUBE),
        ["Transpose", "FusedMatMul", "Add"],
    ),
    "a whole rotation": (
        lambda a, b, c: strop.rotary(a, b, c, 3), (x(2, 3, 5, 4), x(2, 5, 2), x(2, 5, 2)),
        ["RotaryEmbedding"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FEWEST)
def test_nothing_more_is_emitted_than_it_takes(name: str) -> None:
    function, inputs, wanted = FEWEST[name]
    model = lowered(function, inputs)
    assert operators(model) == wanted
    agree(function, list(inputs), session(model))


ARITHMETIC: dict[str, Case] = {
    "subtract twice": (lambda a, b: torch.sub(a, b, alpha=2), (MATRIX, OTHER)),
    "subtract from": (lambda a, b: torch.rsub(a, b, alpha=3), (MATRIX, OTHER)),
    "subtract from a number": (lambda a, b: torch.rsub(a, 2, alpha=3), (MATRIX, OTHER)),
    "subtract half a number": (lambda a, b: torch.sub(a, 3.0, alpha=0.5) + b, (MATRIX, OTHER)),
    "multiply and add ints": (lambda a, b: torch.add(a, b, alpha=-2), (WHOLE, NEXT)),
    "powers of floats": (lambda a: (a**-1, a**1.5, a**3, a**2.0, a**1), (POSITIVE,)),
    "powers of ints": (lambda a, b: (a**1, a**2, a**6, a**7), (WHOLE, NEXT)),
    "between crossed ends": (lambda a, b: a.clamp(1.0, -1.0), (MATRIX, OTHER)),
    "between tensors": (lambda a, b: torch.clamp(a, b - 1, b), (MATRIX, OTHER)),
    "ints between floats": (lambda a, b: a.clamp(-1.5, 2.5), (WHOLE, NEXT)),
    "clip": (lambda a, b: torch.clip(a, min=0.1) + aten.clamp_max(a, 0.5), (MATRIX, OTHER)),
    "clamp_min": (lambda a, b: aten.clamp_min(a, 0.5), (MATRIX, OTHER)),
    "extremes of bools": (
        lambda a, b: (torch.minimum(a, b), torch.maximum(a, b), a * b, a + b),
        (TRUTHS, bools(4, 6).roll(1)),
    ),
    "quotients": (
        lambda a, b: (
            torch.div(a, b, rounding_mode=None),
            torch.div(a, b, rounding_mode="trunc"),
            torch.div(a, b, rounding_mode="floor"),
            torch.div(a, -2.5, rounding_mode="trunc"),
            torch.floor_divide(a, b),
            torch.fmod(a, b),
            torch.fmod(a, -1.5),
            torch.remainder(a, b),
            torch.remainder(a, -1.5),
        ),
        (SIGNED, DIVISORS),
    ),
    "quotients of ints": (
        lambda a, b: (
            torch.div(a, b.abs() + 1, rounding_mode="floor"),
            torch.div(a, -b.abs() - 1, rounding_mode="trunc"),
            torch.fmod(a, -3),
            torch.remainder(a, -3),
            a / 3,
        ),
        (WHOLE, NEXT),
    ),
    "rounded": (
        lambda a: (a.round(decimals=2), a.round(decimals=-1), a.round(decimals=0), a.trunc()),
        (WIDE,),
    ),
    "ints rounded": (
        lambda a: (a.trunc(), a.ceil(), a.round(), torch.isinf(a), a.floor(), torch.isnan(a)),
        (NARROW,),
    ),
    "functions of ints": (
        lambda a: (a.sin(), a.exp(), a.sigmoid(), a.abs(), a.sign(), -a, a.erf(), a.reciprocal()),
        (ints(4, 6, low=1),),
    ),
}


def test_arithmetic() -> None:
    together(ARITHMETIC)


LOGIC: dict[str, Case] = {
    "bools compared": (
        lambda a, b: (a < b, a <= b, a > b, a >= b, a == b, a != b),
        (TRUTHS, bools(4, 6).roll(1)),
    ),
    "ints and floats compared": (
        lambda a, b: (a < b, a <= 1.5, a > 2, a >= b, a == 1.0, a != 1.5), (WHOLE, MATRIX),
    ),
    "bools combined": (
        lambda a, b: (a & b, a | b, a ^ b, ~a, torch.logical_xor(a, b), a & True, a | False),
        (TRUTHS, bools(4, 6).roll(1)),
    ),
    "ints combined": (
        lambda a, b: (a & b, a | b, a ^ b, ~a, torch.logical_not(a), a & 3, a | 4, a ^ 1),
        (WHOLE, NEXT),
    ),
    "floats as truth": (
        lambda a, b: (
            torch.logical_or(a.round(), b.round()),
            torch.logical_xor(a.round(), b.round()),
            torch.logical_not(a.round()),
        ),
        (MATRIX, OTHER),
    ),
    "chosen bools": (
        lambda c, a, b: (torch.where(c, a, b), c.masked_fill(a, True), c.masked_fill(a, False)),
        (TRUTHS, TRUTHS.flip(0), TRUTHS.roll(1)),
    ),
    "chosen numbers": (
        lambda c, a: (
            torch.where(c, 1.5, a), torch.where(c, 2, 3), torch.where(c, a, 1),
            a.masked_fill(c, torch.tensor(2.0)), a.masked_fill(c, -math.inf),
        ),
        (TRUTHS, MATRIX),
    ),
    "casts": (
        lambda a: (
            a.to(torch.float64), a.to(torch.int32), a.bool(), a.long(), a.type_as(a.int()),
            a.to(torch.zeros(1, dtype=torch.int32)), prims.convert_element_type(a, torch.int64),
        ),
        (WIDE,),
    ),
}  # fmt: skip


def test_logic_and_casts() -> None:
    together(LOGIC)


CONVOLUTIONS: dict[str, Case] = {
    "of a signal": (
        lambda a: (
            F.conv1d(a, kernel(4, 6, 3), stride=2, padding=1, dilation=2),
            F.conv1d(a, kernel(6, 2, 4), SLOPES, groups=3),
            F.conv1d(a, kernel(4, 6, 3), padding="same", dilation=2),
            F.conv1d(a, kernel(4, 6, 4), padding="same"),
            F.conv1d(a, kernel(4, 6, 4), padding="valid", stride=2, dilation=2),
            F.conv1d(a[0], kernel(4, 6, 4), padding="valid", dilation=2),
            F.conv1d(a, kernel(6, 2, 4), SLOPES, padding="same", groups=3),
            F.conv_transpose1d(a, kernel(6, 4, 3), stride=2, padding=1, output_padding=1),
            F.conv_transpose1d(a, kernel(6, 2, 3), SLOPES, groups=3, dilation=2),
            F.conv_transpose1d(a[0], kernel(6, 4, 3)),
        ),
        (SIGNAL,),
    ),
    "of an image": (
        lambda a: (
            F.conv2d(a, kernel(4, 6, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)),
            F.conv2d(a, kernel(6, 1, 3, 3), SLOPES, groups=6),
            F.conv2d(a[0], kernel(4, 6, 3, 2), padding=(0, 1)),
            F.conv2d(a, kernel(4, 6, 4, 3), padding="same", dilation=(1, 2)),
            F.conv2d(a[0], kernel(4, 6, 4, 3), padding="same"),
            F.conv_transpose2d(
                a, kernel(6, 4, 3, 2), stride=(2, 3), padding=(1, 0), output_padding=(0, 1),
                dilation=(2, 1),
            ),
            F.conv_transpose2d(a, kernel(6, 1, 3, 3), SLOPES, groups=6),
        ),
        (IMAGE,),
    ),
    "of a volume": (
        lambda a: (
            F.conv3d(a, kernel(4, 2, 2, 3, 2), stride=(1, 2, 3), padding=(0, 1, 2)),
            F.conv3d(a[0], kernel(4, 2, 2, 3, 2), dilation=(2, 1, 3)),
        ),
        (VOLUME,),
    ),
    "padded at each end": (
        lambda a: strop.padded_conv(
            a, kernel(4, 3, 3, 2), None, [2, 1], [1, 0, 2, 3], [2, 3], 2
        ),
        (IMAGE,),
    ),
    "pools of a signal": (
        lambda a: (
            F.max_pool1d(a, 3), F.max_pool1d(a, 3, 2, 1), F.max_pool1d(a, 3, 1, 0, 2),
            F.max_pool1d(a, 2, ceil_mode=True), F.max_pool1d(a[0], 4, 2),
            F.avg_pool1d(a, 3), F.avg_pool1d(a, 3, 1, 1), F.avg_pool1d(a, 3, 2, 1, False, False),
            F.avg_pool1d(a[0], 2, 1),
            F.adaptive_avg_pool1d(a, 3), F.adaptive_avg_pool1d(a, 1), F.adaptive_avg_pool1d(a, 9),
        ),
        (SIGNAL,),
    ),
    "pools of an image": (
        lambda a: (
            F.max_pool2d(a, (3, 2)), F.max_pool2d(a, (3, 2), (1, 2), (1, 0)),
            F.max_pool2d(a, (2, 3), 1, 0, (3, 1)), F.max_pool2d(a[0], 3),
            F.avg_pool2d(a, (3, 2)), F.avg_pool2d(a, (3, 2), (1, 2), (1, 0)),
            F.avg_pool2d(a, (3, 2), 1, (1, 0), False, False), F.avg_pool2d(a[0], 2),
            F.adaptive_avg_pool2d(a, (3, 1)), F.adaptive_avg_pool2d(a, (1, 4)),
            F.adaptive_avg_pool2d(a, (9, 2)), F.adaptive_avg_pool2d(a[0], (1, 1)),
        ),
        (IMAGE,),
    ),
}  # fmt: skip


def test_convolutions_and_pools() -> None:
    together(CONVOLUTIONS)


RESIZED: dict[str, Case] = {
    "nearest": (
        lambda a: (
            F.interpolate(a, scale_factor=1.0), F.interpolate(a, scale_factor=4.0),
            F.interpolate(a, scale_factor=(2.0, 3.0)), F.interpolate(a, scale_factor=(0.5, 1.6)),
            F.interpolate(a, size=(9, 16)), F.interpolate(a, size=(27, 8)),
            F.interpolate(a, size=(18, 5)), F.interpolate(a, size=(12, 8)),
        ),
        (IMAGE,),
    ),
    "nearest along one axis": (
        lambda a: (
            F.interpolate(a, scale_factor=2.0), F.interpolate(a, size=4),
            F.interpolate(a, scale_factor=3.0), F.interpolate(a, size=36),
        ),
        (SIGNAL,),
    ),
    "nearest in a volume": (
        lambda a: (
            F.interpolate(a, scale_factor=(2.0, 1.0, 4.0)), F.interpolate(a, size=(5, 9, 7)),
        ),
        (VOLUME,),
    ),
    "nearest of float64": (lambda a: F.interpolate(a, scale_factor=2.0), (IMAGE.double(),)),
    "linear": (
        lambda a: (
            F.interpolate(a, size=(5, 13), mode="bilinear"),
            F.interpolate(a, size=(5, 13), mode="bilinear", align_corners=True),
            F.interpolate(a, scale_factor=(2.0, 1.5), mode="bilinear"),
            F.interpolate(a, scale_factor=(1 + 1 / 64, 2.0), mode="bilinear"),
            F.interpolate(a, scale_factor=(1.3, 2.0), mode="bilinear", align_corners=True),
        ),
        (IMAGE,),
    ),
    "cubic": (
        lambda a: (
            F.interpolate(a, size=(5, 13), mode="bicubic"),
            F.interpolate(a, size=(5, 13), mode="bicubic", align_corners=True),
            F.interpolate(a, scale_factor=(2.0, 1.5), mode="bicubic"),
            F.interpolate(a, scale_factor=(1 + 1 / 64, 2.0), mode="bicubic"),
        ),
        (IMAGE,),
    ),
    "linear along one axis": (
        lambda a: (
            F.interpolate(a, size=5, mode="linear"), F.interpolate(a, scale_factor=2, mode="linear")
        ),
        (SIGNAL,),
    ),
    "linear in a volume": (lambda a: F.interpolate(a, size=(3, 7, 9), mode="trilinear"), (VOLUME,)),
}  # fmt: skip


def test_resizing() -> None:
    together(RESIZED)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_by_factors_at_every_height(mode: str) -> None:
    def function(a: Tensor) -> tuple[Tensor, ...]:
        return (
            F.interpolate(a, scale_factor=(2.0, 1.5), mode=mode),
            F.interpolate(a, size=(2 * a.shape[2], 8), mode=mode),
            F.interpolate(a, size=(a.shape[2], 11), mode=mode),
        )

    run = session(lowered(function, (IMAGE,), {"a": {2: ("height", 2, 20)}}))
    for height in (2, 3, 9, 20):
        agree(function, [x(4, 6, height, 8)], run)


@pytest.mark.parametrize("factor", [0.5, 1.5, 3.0, 6.0])
def test_other_factors_than_powers_of_two_are_rounded_as_torch_does(factor: float) -> None:
    model = lowered(lambda a: F.interpolate(a, scale_factor=factor), (IMAGE,))
    assert "Resize" not in operators(model)


def test_an_axis_that_keeps_its_size_is_resized_by_one() -> None:
    model = lowered(
        lambda a: F.interpolate(a, size=(a.shape[2], 16)), (IMAGE,), {"a": {2: ("height", 2, 20)}}
    )
    assert operators(model) == ["Resize"]
    agree(lambda a: F.interpolate(a, size=(a.shape[2], 16)), [x(4, 6, 5, 8)], session(model))


def test_pooling_to_one_at_every_height() -> None:
    def function(a: Tensor) -> tuple[Tensor, ...]:
        return F.adaptive_avg_pool2d(a, 1), F.adaptive_avg_pool2d(a[0], 1)

    run = session(lowered(function, (IMAGE,), {"a": {2: ("height", 2, 20)}}))
    for height in (2, 9, 20):
        agree(function, [x(4, 6, height, 8)], run)


MOVED: dict[str, Case] = {
    "padded at one end": (
        lambda a: (
            F.pad(a, (0, 1)), F.pad(a, (2, 0)), F.pad(a, (0, 0, 1, 0)), F.pad(a, (1, -2, -1, 2)),
            F.pad(a, (-2, 0)), F.pad(a, (0, -1), value=3.0),
        ),
        (SIGNAL,),
    ),
    "reflected, repeated and wrapped": (
        lambda a: tuple(
            F.pad(a, pad, mode=mode)
            for mode in ("reflect", "replicate", "circular")
            for pad in ((0, 2), (3, 0), (1, 2), (0, 0), (-1, 2), (2, -3))
        ),
        (SIGNAL,),
    ),
    "padded by a size": (
        lambda a: tuple(
            F.pad(a, (a.shape[0], 1), mode=mode)
            for mode in ("constant", "reflect", "replicate", "circular")
        ),
        (SIGNAL,),
    ),
    "wrapped along two axes": (
        lambda a: (
            F.pad(a, (1, 2, 3, 1), mode="circular"), F.pad(a, (0, 2, 3, 0), mode="circular"),
            F.pad(a, (0, 0, 0, 1), mode="circular"), F.pad(a, (-1, 2, 1, -2), mode="circular"),
        ),
        (IMAGE,),
    ),
    "rolled": (
        lambda a: (
            a.roll(0, 1) + 0, a.roll(1, -1), a.roll(-9, 2), a.roll(10, 2), a.roll(-1),
            a.roll((1, 2), (-1, 1)), a.roll(3, 0), a.roll(-2, 0), a.roll(100),
        ),
        (SIGNAL,),
    ),
    "taken apart": (
        lambda a: (
            *a.split(4, 2), *a.split([9], 2), *a.chunk(4, -1), *a.tensor_split(5, -1),
            *torch.unsafe_split(a, 5, 2), *a[:, :2].unbind(-2),
        ),
        (SIGNAL,),
    ),
    "cut": (
        lambda a: (
            a.narrow(2, 0, 9) + 0, a.narrow(-1, -9, 9) + 0, a.narrow(2, -4, 3), a.narrow(1, 5, 1),
            a.narrow(1, -6, 6) + 0, a.narrow(2, 0, 0), a.narrow(2, -2, 2), a[:, :, 0:9:4],
            a[:, -1:], a[:, :-1],
        ),
        (SIGNAL,),
    ),
    "repeated": (
        lambda a: (
            a.repeat_interleave(2), a.repeat_interleave(2, dim=1), a.repeat_interleave(3, dim=-2),
            a.repeat(1, 2, 1), a.repeat(2, 1, 1, 3), a.repeat(1, 1, 1) + 0,
        ),
        (SIGNAL,),
    ),
    "turned": (
        lambda a: (
            a.permute(1, 2, 0), a.permute(0, -1, -2), a.transpose(1, -1), a.mT, a[0].t(),
            a.flip(2), a.flip(-2, 0), aten.numpy_T(a[0, 0]) + 0,
        ),
        (SIGNAL,),
    ),
    "with axes of one": (
        lambda a: (
            a.unsqueeze(1).squeeze(1) + 0, a[:, :1].squeeze((1, 2)), a[:, :1, :1].squeeze((-1, 1)),
            a[:, :1].squeeze(-2), a.squeeze(2) + 0, a.sum((1, 2)).unsqueeze(-1),
            a.sum().unsqueeze(0), a.sum().squeeze((0,)) + 0,
        ),
        (SIGNAL,),
    ),
    "put together": (
        lambda a: (
            torch.cat([a, a[:, :1]], -2), torch.cat([a[:, :0], a[:, :2]], 1),
            torch.concat([a, a], 0), torch.stack([a, a], 0), torch.stack([a, a], 3),
            torch.stack([a, a], -1), torch.stack([a, a], -4), torch.cat([a, a.double()], 2),
        ),
        (SIGNAL,),
    ),
    "differences": (
        lambda a: (
            a.diff(), a.diff(dim=-2), a.diff(dim=0), a.diff(append=a[..., :2]), (a > 0).diff(),
        ),
        (SIGNAL,),
    ),
    "windows": (
        lambda a: (
            a.unfold(2, 4, 3), a.unfold(-2, 3, 1), a.unfold(1, 6, 6), a.unfold(2, 1, 2),
            a.unfold(0, 2, 1), a.sum().unfold(0, 1, 1),
        ),
        (SIGNAL,),
    ),
    "triangles": (
        lambda a: (a.triu(), a.triu(-2), a.triu(3), a.tril(2), a.tril(-3), (a > 0).triu(1)),
        (SIGNAL,),
    ),
    "given new sizes": (
        lambda a: (
            a.view(a.shape[0], -1), a.reshape(-1, 9), a.reshape(a.shape[0] * 2, 27),
            a.reshape(-1, a.shape[0]), a.flatten(), a.unflatten(1, (2, 3)), a.flatten(0, 1),
            a.reshape(2, 3, a.shape[0], 9), a.reshape(1, a.shape[0], 54), a.view_as(a) + 0,
            a[:, :0].reshape(a.shape[0], 3, 0), a[:, :0].reshape(0, a.shape[0]),
            a.reshape(a.shape[0], 54).reshape(a.shape[0], 6, 9) + 0,
        ),
        (SIGNAL,),
    ),
    "expanded": (
        lambda a: (
            a[:, :1].expand(-1, 5, -1), a[:, :, :1].expand(-1, -1, 3), a.expand(2, 1, *a.shape),
            a[:1].expand(a.shape[0], 6, 9), a[:, :1, :1].expand_as(a),
            a[0, 0].broadcast_to(a.shape[0], 2, 9), a.sum().expand(a.shape[0], 2),
            prims.broadcast_in_dim(a, (a.shape[0], 2, 6, 9), (0, 2, 3)),
        ),
        (SIGNAL,),
    ),
}  # fmt: skip


def test_shapes() -> None:
    together(MOVED)


KEEPS = (False, True)
REDUCED: dict[str, Case] = {
    "of floats": (
        lambda a: tuple(
            made
            for keep in KEEPS
            for made in (
                a.mean(1, keep), a.mean((0, -1), keep), a.sum(-1, keep), a.sum((1, 2), keep),
                a.amax(-1, keep), a.amin((0, 2), keep), a.prod(-2, keep), *a.max(-1, keep),
                *a.min(0, keep), a.argmax(-1, keep), a.argmin(-2, keep), a.argmax(None, keep),
                a.var((0, 2), keepdim=keep), a.var(-1, correction=1, keepdim=keep),
                a.std(0, correction=2, keepdim=keep), a.var(dim=None, correction=0, keepdim=keep),
                a.logsumexp(-1, keep), a.norm(1, (0, -1), keep), a.norm(2, -1, keep),
                a.norm(math.inf, 1, keep), torch.linalg.vector_norm(a, -math.inf, (0, 1), keep),
                torch.linalg.vector_norm(a, 1, None, keep), torch.linalg.vector_norm(a, 2, 0, keep),
            )
        ),
        (CUBE,),
    ),
    "of all floats": (
        lambda a: (
            a.mean(), a.sum(), a.sum(dtype=torch.float64), a.max(), a.min(), a.var(), a.std(),
            a.var(unbiased=False), a.std(correction=0), a.argmin(), a.norm(), a.sum(()),
            a.amax(), a.mean((0, 1, 2)), a.var((0, 1, 2), correction=3), a.norm(1), a.prod(-1),
            a.var([]), a.std((), correction=2), a.mean([]), a.amax([]),
        ),
        (CUBE,),
    ),
    "of floats at once": (
        lambda a: (
            a.softmax(1), a.softmax(-1, dtype=torch.float64), a.log_softmax(0), a.log_softmax(-1),
            aten._softmax(a, 2, False), a.cumsum(1), a.cumsum(-1), a.cumsum(0),
            a.sum(1, dtype=torch.float64), a.cumsum(2, dtype=torch.float64),
            prims.sum(a, [0, 2]), prims.sum(a.sum(), []), prims.prod(a, [1]),
        ),
        (CUBE,),
    ),
    "of ints": (
        lambda a: tuple(
            made
            for keep in KEEPS
            for made in (
                a.sum(1, keep), a.sum((0, 1), keep), a.amax(-1, keep), a.amin(0, keep),
                a.prod(1, keep), *a.max(1, keep), a.any(1, keep), a.all(-1, keep),
                a.sum(1, keep, dtype=torch.float32), a.argmin(1, keep), a.mean(1, keep, dtype=F32),
            )
        ),
        (WHOLE,),
    ),
    "of int32": (
        lambda a: (
            a.sum(1), a.sum(), a.amax(1), a.cumsum(1), a.prod(1), a.sum(1, dtype=torch.int32),
            a.sum(0, dtype=torch.float64), a.any(), a.all(), prims.prod(a.long(), [1]),
        ),
        (NARROW,),
    ),
    "of large ints": (
        lambda a: (a.sum(), a.sum(1), a.sum(1, True), a.sum((0, 1))), (WHOLE * (2**55 + 3) - 7,)
    ),
    "of bools": (
        lambda a: tuple(
            made
            for keep in KEEPS
            for made in (
                a.any(-1, keep), a.all((0, 1), keep), a.amax(1, keep), a.amin(-1, keep),
                a.sum(1, keep), *a.any(1, keep, ).unbind(-1)[:1], a.max(1, keep)[0],
            )
        ),
        (TRUTH_CUBE,),
    ),
    "of a number": (
        lambda a: (
            a.sum().sum(0), a.sum().mean(0), a.sum().amax(0), a.sum().argmax(0), a.sum().argmax(),
            a.sum().max(0)[0], a.sum().softmax(0), a.sum().prod(0), a.sum().argmin(keepdim=True),
            (a.sum() > 0).any(0), a.long().sum().prod(0), a.long().sum().sum(0),
            *a.sum().sort(0), *a.sum().topk(1, 0), a.sum().norm(2, 0), a.sum().var(0, correction=0),
        ),
        (CUBE,),
    ),
}  # fmt: skip
F32 = torch.float32


def test_reductions() -> None:
    together(REDUCED)


ORDERED: dict[str, Case] = {
    "floats": (
        lambda a: (
            *a.sort(1), *a.sort(-1, descending=True), *torch.sort(a, stable=True, dim=0),
            a.argsort(-1), a.argsort(1, descending=True), *a.topk(3, -1), *a.topk(2, 0),
            *a.topk(1, 1, largest=False), *torch.sort(a, stable=False, dim=2, descending=True),
        ),
        (CUBE,),
    ),
    "bools": (lambda a: (a.sort(1)[0], a.sort(-1, descending=True)[0]), (TRUTHS,)),
    "ints": (lambda a: (a.sort(1)[0], a.topk(2, 1, largest=False)[0]), (NARROW,)),
}  # fmt: skip


def test_orders() -> None:
    together(ORDERED)


PICKED: dict[str, Case] = {
    "by positions": (
        lambda a: (
            a[:, 2], a[..., -9], a.select(-1, 8), a.index_select(-1, AT[0]), a[AT[0]],
            a[:, AT], a[..., AT], a[AT[0], AT[1]], a[:, AT[0], AT[1]], a[:, AT[:, :1], AT],
            a[AT[0], :, AT[1]], a[:, None, AT[0]], a.index_select(0, AT[1]),
            a.sum().index_select(0, AT[1, :1]) + 0, a.sum().gather(0, AT[0, 1]) + 0,
            a.sum().gather(0, 0 * AT[0]),
            a[:, 0, 0].gather(0, AT[0, 0]),
        ),
        (SIGNAL,),
    ),
    "by masks": (
        lambda a: (
            a[:, HALF], a[..., THIRD], a[:, HALF][:, :, THIRD], a[:, BOTH], a[AT[0, :1], HALF],
            a[:, HALF, AT[0, :1]], a[:, HALF, AT[:, :1]], a[:, BOTH.byte().bool()],
            a[a[:, 0, 0] > 0], a[a[:, :, 0] > 0], a[a > 0],
            a[AT[0, :1], :, THIRD], a[a[:, 0, 0] > 0, AT[0, :1]],
            a[a[:, 0, 0] > 0, :, AT[0, :1]],
        ),
        (SIGNAL,),
    ),
    "written": (
        lambda a, i: (
            a.scatter(-1, i, 2.0), a.scatter(1, i, a), a.scatter_add(-1, i, a),
            a.scatter(0, i % 2, a), *(
                a.scatter_reduce(1, i, a, reduce) for reduce in ("sum", "prod", "amax", "amin")
            ),
            a.select_scatter(a[:, 0], -1, -1), a.select_scatter(a[:, 0], 1, 5),
            a.select_scatter(a[:, 0].double(), 1, 0), a.slice_scatter(a[:, :2], 1, -2),
            a.slice_scatter(a[:, :2], -1, 1, 3), a.slice_scatter(a[:, :1], 1, None, 1),
            a.index_put((AT[0],), a[:2]), a.index_put((AT[0], AT[1]), a[0, :2], accumulate=True),
            a.index_put((AT[0], AT), torch.tensor(3.0)), a.index_put((AT[0].int(),), a[:2, :1]),
            a.index_put((a > 0,), torch.tensor(3.0), accumulate=True),
            a.index_put((a[:, 0] > 0,), torch.tensor(3)),
        ),
        (MATRIX, ints(4, 3, low=0)),
    ),
    "the data's own sizes": (
        lambda a: (
            a.nonzero(), *a.nonzero(as_tuple=True), (a > 0).nonzero(), a.sum().nonzero(),
            (a.sum() * 0).nonzero(), *torch.where(a > 0), *torch.where(a.sum() > -99),
            torch.argwhere(a > 0), a.masked_select(a > 0), a[:, :1].masked_select(a > 0),
            a.masked_select(a[:, :1] > 0), a.masked_select(a.sum() > -99),
        ),
        (MATRIX,),
    ),
    "repeated by counts": (
        lambda a, i: (
            a.repeat_interleave(i[0] % 3, dim=1), a.mT.repeat_interleave(i[0] % 3, dim=0),
            a.repeat_interleave(torch.tensor([2]), dim=1), a.repeat_interleave(torch.tensor(2)),
            a.repeat_interleave(torch.tensor([1, 0, 2, 0, 1, 0]).int(), dim=-1),
            torch.repeat_interleave(i[0].abs()), torch.repeat_interleave(i[0].abs().int()),
        ),
        (MATRIX, WHOLE),
    ),
    "distinct": (
        lambda a, i: (
            i.unique(), i.int().unique(), i.half().unique(),
            (i.int() + 2**24).unique(), i.float().unique(), i.double().unique(),
            (i > 0).unique(), *torch.unique(i, return_inverse=True, return_counts=True),
            *torch.unique(i % 2, dim=0, return_inverse=True, return_counts=True),
            *torch.unique(i % 2, dim=1, return_inverse=True, return_counts=True),
            *torch.unique_consecutive(i % 2, return_inverse=True, return_counts=True),
            *torch.unique_consecutive((i % 2)[0].int(), return_counts=True, dim=0),
            *torch.unique_consecutive(i % 2 > 0, return_inverse=True, return_counts=True),
        ),
        (MATRIX, WHOLE),
    ),
    "counted": (
        lambda a, i: (
            i[0].abs().bincount(), i[0].abs().bincount(minlength=9), i[0].abs().bincount(a[0]),
            i[0].abs().int().bincount(i[1]), i[0].abs().bincount(a[0].double(), minlength=2),
        ),
        (MATRIX, WHOLE),
    ),
}  # fmt: skip
AT = torch.tensor([[1, 0], [0, 1]])
HALF = torch.tensor([True, False, True, True, False, False])
THIRD = torch.tensor([True, False, False] * 3)
BOTH = HALF[:, None] & THIRD


def test_reading_and_writing_by_index() -> None:
    together(PICKED)


MADE: dict[str, Case] = {
    "filled": (
        lambda a: (
            torch.full((a.shape[0], 2), 3), torch.full((2,), True), a.new_full((2, 3), 5),
            torch.full_like(a, 2, dtype=torch.int64), aten.fill.Tensor(a, torch.tensor(2)),
            aten.fill.Scalar(a, 3), torch.zeros(a.shape[0]), torch.ones_like(a, dtype=torch.bool),
            a.new_ones(2), a.new_zeros(a.shape[0], dtype=torch.int32), torch.zeros_like(a),
            torch.scalar_tensor(3), torch.scalar_tensor(a.shape[0]), torch.ones(()),
            torch.empty_like(a)[:, :0],
        ),
        (MATRIX,),
    ),
    "ranges": (
        lambda a: (
            torch.arange(a.shape[0]), torch.arange(1, a.shape[0]), torch.arange(a.shape[0] * 1.0),
            torch.arange(9, 0, -2) + a.shape[0], torch.arange(0, a.shape[0], dtype=torch.float32),
            torch.arange(-1.0, 2.0, 0.5), torch.arange(2, 2 * a.shape[0], 3),
        ),
        (MATRIX,),
    ),
    "one hot": (
        lambda i: (F.one_hot(i.abs(), 6), F.one_hot(i[0].abs(), 9), F.one_hot(i[0, 0].abs(), 6)),
        (WHOLE,),
    ),
    "from sizes": (
        lambda a: (
            a * a.shape[0], a + a.shape[0] / 2, a * a.shape[0] ** 0.5, a - (a.shape[0] + 1) // 2,
            a * (a.shape[0] % 2), a * torch.sym_max(a.shape[0], 3), a + a.shape[0] * a.shape[0],
            a * torch.sym_min(a.shape[0] - 1, 3), a * math.ceil(a.shape[0] / 2),
            a + math.floor(a.shape[0] / 3), a * -a.shape[0],
            a + -(-a.shape[0] // 2), a + (1 - a.shape[0]) // 2, a + (3 - 2 * a.shape[0]) % 4,
            a > a.shape[0] / 4, a.long() + a.shape[0], a * torch.sym_sqrt(a.shape[0]),
            a + 2 ** a.shape[0], a * (a.shape[0] / 3.0),
        ),
        (MATRIX,),
    ),
}  # fmt: skip


def test_tensors_made_from_sizes() -> None:
    together(MADE)


MASK_CHAIN = {63: False, 64: True}


@pytest.mark.parametrize(("length", "repaired"), MASK_CHAIN.items())
def test_long_ways_of_making_a_mask_are_not_followed_to_their_end(
    length: int, repaired: bool
) -> None:
    def function(q: Tensor, m: Tensor) -> Tensor:
        mask = m.float()
        for _ in range(length - 1):
            mask = mask.cos()
        return F.scaled_dot_product_attention(q, q, q, mask)

    model = lowered(function, (x(2, 4, 3, 8), bools(3, 3)))
    assert ("Equal" in operators(model)) == repaired


@pytest.mark.parametrize("head", [4, 5, 6, 9])
@pytest.mark.parametrize("variant", ["standard", "composed"])
def test_a_rotation_of_a_part_leaves_the_rest(variant: str, head: int) -> None:
    inputs = (x(2, 3, 5, head + head % 2), x(2, 5, 2, seed=2), x(2, 5, 2, seed=3))
    model = lowered(
        lambda a, b, c: strop.rotary(a, b, c, 3), inputs, None, ("strop.rotary", variant)
    )
    agree(lambda a, b, c: strop.rotary(a, b, c, 3), list(inputs), session(model))


LOWEST = torch.finfo(torch.float32).min
HIDDEN: dict[str, tuple[Function, bool]] = {
    "by the lowest number": (lambda m: torch.where(m, 0.0, LOWEST), True),
    "by a product with it": (lambda m: (1 - m.float()) * LOWEST, True),
    "by less than half of it": (lambda m: (1 - m.float()) * (LOWEST / 2), False),
    "by a weight": (lambda m: m.float() + PLANE[:, :3], True),
    "by a keyword": (lambda m: torch.add(m.float(), m.float(), alpha=LOWEST), True),
    "by infinity": (lambda m: torch.where(m, 0.0, -math.inf), False),
    "by ones": (lambda m: m.float(), False),
    "by what is added twice": (lambda m: m.float() + m.float() * 2 + m.float(), False),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_masks_that_may_hold_the_lowest_number(name: str) -> None:
    mask, repaired = HIDDEN[name]

    def function(q: Tensor, m: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, mask(m))

    inputs = (x(2, 4, 3, 8), torch.tensor([[True, False, True]] * 2 + [[False] * 3]))
    model = lowered(function, inputs)
    assert ("Equal" in operators(model)) == repaired
    if name != "by infinity":  # a row of nothing but it is NaN in torch
        agree(function, list(inputs), session(model))


HEADS: dict[str, Case] = {
    "on packed heads": (
        lambda q, k, m: (
            strop.attention(q, k, k, None, 4, 2, 0.3, False),
            strop.attention(q, k, k, m, 4, 2, 0.3, False),
            strop.attention(q, k, k, m[0], 4, 2, 0.3, False),
            strop.attention(q, k, k, m[..., :1], 4, 2, -0.3, False),
            strop.attention(q, k, k, m[0, 0], 4, 2, 0.0, False),
            strop.attention(q, k, k, m[0, 0, 0] > 0, 4, 2, 0.3, True),
            strop.attention(q, k, k, m[0, 0, 0, :1] < 9, 4, 2, 0.3, True),
        ),
        (x(4, 3, 32), x(4, 5, 16, seed=1), x(4, 1, 3, 5, seed=2)),
    ),
    "on heads apart": (
        lambda q, k, m: (
            F.scaled_dot_product_attention(q, k, k, m, enable_gqa=True),
            F.scaled_dot_product_attention(q, k, k, m[:, :, :1], scale=0.2, enable_gqa=True),
            F.scaled_dot_product_attention(q, k, k, m[..., :1] > 0, enable_gqa=True),
            F.scaled_dot_product_attention(q, k[:1], k[:1], enable_gqa=True),
            F.scaled_dot_product_attention(q, k, k[:1], enable_gqa=True),
            F.scaled_dot_product_attention(q[:, :2], k[:, :, :3], k[:, :, :3], is_causal=True),
        ),
        (x(4, 4, 3, 8), x(4, 2, 5, 8, seed=1), x(4, 1, 3, 5, seed=2)),
    ),
}  # fmt: skip


def test_attention() -> None:
    together(HEADS)


WEIGHT, GAIN, PLANE = x(5, 6, seed=7), positive(6), x(3, 6, seed=9)
PRODUCTS: dict[str, Case] = {
    "of matrices": (
        lambda a, b: (
            F.linear(a, WEIGHT, WEIGHT[:, 0]), F.linear(a[0], WEIGHT, WEIGHT[:, 0]),
            F.linear(a[0], WEIGHT), F.linear(a, WEIGHT[0]), F.linear(a[0], WEIGHT[0], GAIN[0]),
            torch.mm(a, b.t()), torch.addmm(WEIGHT[:, 0], a, WEIGHT.t(), beta=0, alpha=2),
            torch.addmm(a[:, :5], a, WEIGHT.t(), alpha=-1), torch.einsum("ij,kj->ik", a, b),
            torch.addmm(WEIGHT[:1, :5] * math.nan, a, WEIGHT.t(), beta=0),
        ),
        (MATRIX, OTHER),
    ),
    "of batches": (
        lambda a: (
            F.linear(a, WEIGHT, WEIGHT[:, 0]), a @ a.mT, torch.bmm(a, a.mT),
            torch.baddbmm(a[..., :3], a, a.mT, beta=1, alpha=0.5),
            torch.baddbmm(a[..., :3], a, a.mT, beta=2), a @ GAIN,
            torch.einsum("bij,bkj,j->bik", a, a, GAIN),
        ),
        (CUBE,),
    ),
    "norms": (
        lambda a: (
            F.layer_norm(a, (6,)), F.layer_norm(a, (3, 6), PLANE), F.layer_norm(a, (6,), GAIN),
            F.layer_norm(a, (6,), GAIN, GAIN, 0.5), F.rms_norm(a, (6,), eps=0.5),
            F.rms_norm(a, (3, 6), PLANE), F.rms_norm(1e-4 * a, (6,), GAIN),
        ),
        (CUBE,),
    ),
    "norms of channels": (
        lambda a: (
            F.group_norm(a, 2, GAIN, GAIN), F.group_norm(a, 6), F.group_norm(a, 1, GAIN),
            F.instance_norm(a, weight=GAIN), F.instance_norm(a, eps=0.5),
            F.instance_norm(a, GAIN, GAIN, use_input_stats=False),
            F.batch_norm(a, GAIN, GAIN, GAIN), F.batch_norm(a, GAIN, GAIN, None, GAIN, eps=0.5),
            aten._native_batch_norm_legit_no_training(a, GAIN, None, GAIN, GAIN, 0.1, 0.5)[0],
        ),
        (SIGNAL,),
    ),
}  # fmt: skip


def test_products_and_norms() -> None:
    together(PRODUCTS)


REFUSED: dict[str, tuple[Function, tuple[Tensor, ...]]] = {
    "elu with a scale": (lambda a: aten.elu(a, 1.0, 2.0, 1.0), (MATRIX,)),
    "a power of integers": (lambda a: a**0, (WHOLE,)),
    "computed exponent": (lambda a: a ** a.abs(), (WHOLE,)),
    "divisor_override": (lambda a: F.avg_pool2d(a, 2, divisor_override=3), (IMAGE,)),
    "windows of unequal sizes": (lambda a: F.adaptive_avg_pool2d(a, (4, 8)), (IMAGE,)),
    "the runtime would round": (
        lambda a: F.interpolate(a, scale_factor=(2.0, 1.3), mode="bilinear"), (IMAGE,),
    ),
    "dropout in train mode": (lambda a: F.dropout(a, 0.5, training=True), (MATRIX,)),
    "or with dropout": (
        lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5), (x(2, 4, 3, 8),),
    ),
    "no fused product of torch.float64": (
        lambda a: F.linear(a, WEIGHT.double()), (CUBE.double(),),
    ),
    "a scaled product of integers": (lambda a: torch.addmm(a, a, a), (ints(4, 4),)),
    "a mean": (lambda a, i: a.scatter_reduce(1, i, a, "mean"), (MATRIX, ints(4, 6, low=0))),
    "leaves out the old values": (
        lambda a, i: a.scatter_reduce(1, i, a, "sum", include_self=False),
        (MATRIX, ints(4, 6, low=0)),
    ),
    "writing into a number": (
        lambda a, i: a.sum().scatter_reduce(0, i[0, 0], a[0, 0], "sum"),
        (MATRIX, ints(4, 6, low=0, high=1)),
    ),
    "index_put with whole axes": (
        lambda a: aten.index_put(a, [None, AT[0]], torch.tensor(2.0)), (MATRIX,),
    ),
    "or a boolean mask": (lambda a: a.index_put((a > 0,), a[0, :1]), (MATRIX,)),
    "runs of equal slices": (lambda a: torch.unique_consecutive(a, dim=0), (WHOLE,)),
    "order 0": (lambda a: torch.linalg.vector_norm(a, 0), (MATRIX,)),
    "every n-th element": (lambda a: a.slice_scatter(a[:, :3], 1, step=2), (MATRIX,)),
    "writes no": (lambda a: a.to(torch.float8_e4m3fn).float(), (MATRIX,)),
    "complex numbers": (lambda a: torch.view_as_real(torch.complex(a, a)), (MATRIX,)),
}  # fmt: skip


@pytest.mark.parametrize("says", REFUSED)
def test_what_a_row_does_not_take_it_refuses(says: str) -> None:
    function, inputs = REFUSED[says]
    with pytest.raises(UnsupportedError) as raised:
        lowered(function, inputs)
    assert says in str(raised.value)


DYNAMIC: dict[str, tuple[Function, tuple[Tensor, ...], int]] = {
    "windows of unequal sizes": (lambda a: F.adaptive_avg_pool2d(a, 3), (IMAGE,), 2),
    "the number of channels": (
        lambda a: F.instance_norm(a), (x(2, 4, 5),), 1,
    ),
    "keeps the axis": (
        lambda a: F.interpolate(a, scale_factor=(1.25, 2.0), mode="bilinear"), (IMAGE,), 2,
    ),
    "along a dynamic axis": (lambda a: a.prod(1), (WHOLE,), 1),
}  # fmt: skip


@pytest.mark.parametrize("says", DYNAMIC)
def test_what_a_row_does_not_take_at_any_size_it_refuses(says: str) -> None:
    function, inputs, axis = DYNAMIC[says]
    with pytest.raises(UnsupportedError) as raised:
        lowered(function, inputs, {"a": {axis: ("size", 4, 20)}})
    assert says in str(raised.value)
