"""Lowerings with a dynamic size, at every size of a range: a rounding or a constant would show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_lowering import lowered, session, x
from torch import Tensor

Function = Callable[[Tensor], tuple[Tensor, ...]]
IMAGE, SIGNAL, MATRIX = (1, 2, 9, 8), (2, 3, 11), (9, 5)


def resized(mode: str, **options: bool) -> Function:
    """To fixed sizes, and by factors that round well and badly."""

    def function(a: Tensor) -> tuple[Tensor, ...]:
        return (
            F.interpolate(a, size=(32, 8), mode=mode, **options),
            F.interpolate(a, size=(5, 11), mode=mode, **options),
            F.interpolate(a, scale_factor=2.0, mode=mode, **options),
            F.interpolate(a, scale_factor=(0.7, 1.1), mode=mode, **options),
            F.interpolate(a, scale_factor=1.3, mode=mode, recompute_scale_factor=True, **options),
        )

    return function


def pooled(a: Tensor) -> tuple[Tensor, ...]:
    return (
        F.avg_pool2d(a, 3, 2, 1, ceil_mode=True),
        F.avg_pool2d(a, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        F.avg_pool2d(a, (2, 3), 2, (1, 0), count_include_pad=False, divisor_override=4),
        F.avg_pool2d(a, 3, 2, 1),
        F.max_pool2d(a, 3, 2, 1, ceil_mode=True),
        F.max_pool2d(a, 2, 3, 1, ceil_mode=True),
        F.max_pool2d(a, 2, 2, 0, 2),
        F.max_pool2d(F.pad(-a.abs(), (1, 1, 1, 1)), 3, 2),
    )


def adaptive(a: Tensor) -> tuple[Tensor, ...]:
    return (
        F.adaptive_avg_pool2d(a, 3),
        F.adaptive_avg_pool2d(a, (5, 2)),
        F.adaptive_max_pool2d(a, (4, 3)),
        F.adaptive_avg_pool2d(a, (None, 3)),
    )


def padded(a: Tensor) -> tuple[Tensor, ...]:
    return (
        F.pad(a, (1, 2, 3, 1), mode="reflect"),
        F.pad(a, (1, 2, 3, 1), mode="replicate"),
        F.pad(a, (1, 2, 3, 1), mode="circular"),
        F.pad(a, (1, -2, -1, 3), value=2.0),
        F.pad(a, (1, -2, -1, 3), mode="replicate"),
        # ONNX Runtime moves a Transpose past the padding, which then is of other axes.
        F.pad(a.transpose(1, 2), (1, 2), value=2.0).transpose(1, 2) * 2,
        F.pad(a.transpose(1, 2), (0, 0, 1, 0), mode="reflect").transpose(1, 2) * 2,
    )


def moved(a: Tensor) -> tuple[Tensor, ...]:
    return (
        a.roll(3, -1),
        a.roll((2, -4), (0, 2)),
        a.roll(5),
        a.diff(n=2),
        a.diff(dim=1, prepend=a[:, :1]),
        a.flip(-1),
        a[..., ::3],
        a[..., 1:-1:2],
        a.repeat_interleave(2),
        a.repeat_interleave(3, dim=2),
        a.tril(1),
        a.triu(-2),
    )


def parted(a: Tensor) -> tuple[Tensor, ...]:
    return (*a.split([2, 3], dim=1), *a.T.tensor_split(3), *a.T.chunk(5), *a[4:].split(1, dim=1))


def summed(a: Tensor) -> tuple[Tensor, ...]:
    n = a.shape[0]
    return (
        a.cumsum(0),
        a.cumprod(0),
        a.logcumsumexp(0),
        a.cummax(0)[0],
        torch.arange(n),
        torch.arange(1, 2 * n, 3),
        a.kthvalue(2, 0)[0],
        a.median(0)[0],
        a.std(0),
        a.sort(0)[0],
        a.argmax(0),
        a.norm(3, dim=0),
        torch.cdist(a, a + 1),
        torch.bucketize(a, a[:, 0].sort()[0]),
    )


def windowed(a: Tensor) -> tuple[Tensor, ...]:
    columns = F.unfold(a, 3, padding=1, stride=2)
    return (
        columns,
        a.unfold(2, 3, 2),
        F.pixel_shuffle(a.repeat(1, 2, 1, 1), 2),
        F.fold(F.unfold(a, 2), (a.shape[2], a.shape[3]), 2),
        F.grid_sample(a, a[:, :, :3].permute(0, 2, 3, 1), align_corners=False),
    )


def written(a: Tensor) -> tuple[Tensor, ...]:
    b = a.clone()
    b[:, torch.tensor([0, 2])] = a[:, :2]
    b[:, ::2] += 1
    c = a.clone()
    c[a > 0] = 5.0
    d = a.clone()
    d[2:, 1] = 0
    return b, c, d, a.index_add(1, torch.tensor([1, 1]), a[:, :2])


CASES: dict[str, tuple[Function, tuple[int, ...], int, int, int]] = {
    # The function, the example's shape, the dynamic axis and its range.
    "resized to the nearest": (resized("nearest"), IMAGE, 2, 4, 40),
    "resized to the nearest, exactly": (resized("nearest-exact"), IMAGE, 2, 4, 40),
    "resized linearly": (resized("bilinear", align_corners=False), IMAGE, 2, 4, 40),
    "resized between corners": (resized("bilinear", align_corners=True), IMAGE, 2, 4, 40),
    "resized cubically": (resized("bicubic", align_corners=False), IMAGE, 2, 4, 40),
    "pooled": (pooled, IMAGE, 2, 4, 30),
    "pooled to a size": (adaptive, IMAGE, 2, 3, 30),
    "padded": (padded, IMAGE, 2, 5, 30),
    "moved": (moved, SIGNAL, 2, 5, 30),
    "parted": (parted, (9, 5), 0, 9, 9),
    "summed": (summed, MATRIX, 0, 3, 30),
    "windowed": (windowed, IMAGE, 2, 4, 30),
    "written": (written, MATRIX, 0, 3, 20),
}
# Places between pixels are float32, and the file rounds them otherwise than torch: near row 40 by
# one unit, 4e-6, which the step to the next pixel multiplies. The largest difference is 1.6e-5.
TOLERANCES = dict.fromkeys(
    ("resized linearly", "resized between corners", "resized cubically"), 2e-5
)


@pytest.mark.parametrize("name", CASES)
def test_at_every_size(name: str) -> None:
    function, shape, axis, low, high = CASES[name]
    axes = {"a": {axis: ("n", low, high)}} if low < high else {}
    run = session(lowered(function, [x(*shape)], axes))
    for size in range(low, high + 1):
        sizes = [size if i == axis else s for i, s in enumerate(shape)]
        given = x(*sizes, seed=size)
        for found, want in zip(run.run(None, {"a": given.numpy()}), function(given), strict=True):
            np.testing.assert_allclose(
                found, want.numpy(), rtol=1e-5, atol=TOLERANCES.get(name, 1e-5)
            )
