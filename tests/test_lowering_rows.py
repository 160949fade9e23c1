"""Rows of the lowering table, condition by condition, with no other candidate to help them out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_lowering import Function, Wrapped, agree, bools, ints, positive, session, x
from torch import Tensor

from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UnsupportedError
from strop.compiler.util.numerics import Array

Case = tuple[Function, tuple[Tensor, ...]]
strop = torch.ops.strop
ROWS = {0: ("rows", 2, 5)}
LOWEST, NAN = torch.finfo(torch.float32).min, math.nan
pytestmark = pytest.mark.usefixtures("rows_only")


def lowered(
    function: Function,
    inputs: tuple[Tensor, ...],
    axes: dict[str, Any] | None = None,
    variant: tuple[str, str] | None = None,
) -> Any:
    model = Model(Wrapped(function).eval(), dict(zip("abc", inputs)), dynamic=axes or {})
    signature, example, _ = read_inputs(model)
    program = capture(model.module, signature, example)
    times = {variant[0]: {variant[1]: {"any size": 1.0}}} if variant else {}
    return lower_to_onnx(program, get_target("cpu"), Choices(times))


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph]


def together(cases: dict[str, Case], axes: Any = ROWS, rows: int = 3) -> None:
    """Each case against torch, at the rows of the example and at fewer.

    Cases on the same inputs share one program: capturing costs more than they do.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, (_, inputs) in cases.items():
        groups.setdefault(tuple(map(id, inputs)), []).append(name)
    for names in groups.values():
        inputs = cases[names[0]][1]
        functions = [cases[name][0] for name in names]

        def function(*given: Tensor, functions: list[Function] = functions) -> tuple[Any, ...]:
            return tuple(f(*given) for f in functions)

        dynamic = {n: axes for n, _ in zip("abc", inputs)} if axes else {}
        run = session(lowered(function, inputs, dynamic))
        for given in (inputs, tuple(t[:rows] for t in inputs)) if axes else (inputs,):
            got = run.run(None, dict(zip("abc", (t.numpy() for t in given))))
            left = iter(got)
            for name, f in zip(names, functions):
                want = f(*given)
                for one in want if isinstance(want, (tuple, list)) else (want,):
                    same(next(left), one.numpy(), name)


def same(got: Array, want: Array, name: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), name
    exact = got.dtype.kind != "f"
    np.testing.assert_allclose(
        got, want, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5, err_msg=name
    )


def check(
    function: Function,
    inputs: tuple[Tensor, ...],
    axes: dict[str, Any] | None = None,
    others: tuple[Tensor, ...] | None = None,
    variant: tuple[str, str] | None = None,
) -> Any:
    """Torch and the file agree at the sizes of the example, and at others."""
    model = lowered(function, inputs, axes, variant)
    run = session(model)
    agree(function, list(inputs), run)
    if others:
        agree(function, list(others), run)
    return model


CUBE, MATRIX = x(4, 3, 6), x(4, 6)
# One tensor for one shape: cases on the same tensors share a program.
IMAGE_ROW, DEEP, PLANE, THIN = x(4, 6, 5), x(4, 3, 5, 2), x(4, 3, 5, 6), x(4, 1, 3, 1)
WHOLE, TRUTHS, TRUTH_CUBE = ints(4, 6), bools(4, 6), bools(4, 3, 6)
SHAPES: dict[str, Case] = {
    "transpose of the first and last": (lambda a: a.transpose(0, 2), (CUBE,)),
    "T of a vector": (lambda a: a.t() * 1.5, (x(4),)),
    "numpy's T": (lambda a: torch.ops.aten.numpy_T(a), (MATRIX,)),
    "unsqueeze at the end": (lambda a: a.unsqueeze(3), (CUBE,)),
    "unsqueeze at the front": (lambda a: a.unsqueeze(-4), (CUBE,)),
    "squeeze one of two": (lambda a: a.squeeze(1), (x(4, 1, 1, 3),)),
    "squeeze several, one not 1": (lambda a: a.squeeze((1, 2, -1)), (THIN,)),
    "squeeze all": (lambda a: a.squeeze(), (THIN,)),
    "repeat with two new axes": (lambda a: a.repeat(2, 3, 1, 2), (MATRIX,)),
    "repeat_interleave flat": (lambda a: a.flatten().repeat_interleave(3), (x(4),)),
    "repeat_interleave from the right": (lambda a: a.repeat_interleave(2, dim=-1), (CUBE,)),
    "repeat_interleave the first": (lambda a: a.repeat_interleave(2, dim=0), (CUBE,)),
    "slice to the end": (lambda a: a[:, 1:], (CUBE,)),
    "slice with a step from one": (lambda a: a[..., 1::2], (CUBE,)),
    "slice the middle axis": (lambda a: a[:, 1:2, 1:4], (CUBE,)),
    "slice from the end on": (lambda a: a[:, -2:], (CUBE,)),
    "narrow within from the end": (lambda a: a.narrow(1, -3, 2), (CUBE,)),
    "narrow from the start": (lambda a: a.narrow(2, 0, 4), (CUBE,)),
    "narrow to the end": (lambda a: a.narrow(1, 1, 2), (CUBE,)),
    "narrow one": (lambda a: a.narrow(1, -1, 1), (CUBE,)),
    "split in one": (lambda a: a.split(6, dim=-1)[0] * 2, (CUBE,)),
    "split the first axis given": (lambda a: a.split([1, 2], 1), (CUBE,)),
    "split unevenly": (lambda a: a.split(2, 1), (CUBE,)),
    "tensor_split": (lambda a: a.tensor_split(4, dim=2), (CUBE,)),
    "unbind one": (lambda a: a[:, :1].unbind(1), (CUBE,)),
    "unbind from the right": (lambda a: a.unbind(-1), (CUBE,)),
    "cat of one": (lambda a: torch.cat([a], 1) * 2, (CUBE,)),
    "cat of empty ones": (
        lambda a: torch.cat([a[:, :0], a[:, :0]], 1).sum() + a,
        (CUBE,),
    ),
    "cat with one of no rows": (lambda a: torch.cat([a[:, :0], a, a[:, :1]], 1), (CUBE,)),
    "stack in the middle": (lambda a: torch.stack([a, 2 * a], 1), (CUBE,)),
    "stack from the right, promoted": (lambda a, b: torch.stack([a, b], -2), (MATRIX, WHOLE)),
    "flip one": (lambda a: a.flip(1), (CUBE,)),
    "flip three": (lambda a: a.flip(0, 1, 2), (CUBE,)),
    "roll back": (lambda a: a.roll(-1, 1), (CUBE,)),
    "roll by nothing": (lambda a: a.roll(0, 1) + a, (CUBE,)),
    "roll far back": (lambda a: a.roll(-7, 2), (CUBE,)),
    "roll two axes": (lambda a: a.roll((1, 3), (0, 2)), (CUBE,)),
    "diff of the first axis": (lambda a: a.diff(dim=1), (CUBE,)),
    "diff of bools": (lambda a: a.diff(dim=1), (TRUTHS,)),
    "diff with both ends": (lambda a: a.diff(prepend=a[:, :1], append=a[:, :2]), (MATRIX,)),
    "pad two axes unevenly": (lambda a: F.pad(a, (1, 2, 3, 4)), (CUBE,)),
    "pad and crop": (lambda a: F.pad(a, (-1, 2)), (CUBE,)),
    "pad with a number": (lambda a: F.pad(a, (0, 1), value=-2.0), (CUBE,)),
    "reflect two axes": (lambda a: F.pad(a, (2, 1, 1, 0), mode="reflect"), (PLANE,)),
    "replicate two axes": (lambda a: F.pad(a, (2, 1, 1, 0), mode="replicate"), (PLANE,)),
    "upper triangle above": (lambda a: a.triu(2), (CUBE,)),
    "upper triangle below": (lambda a: a.triu(-1), (CUBE,)),
    "lower triangle above": (lambda a: a.tril(1), (CUBE,)),
    "unfold the middle axis": (lambda a: a.unfold(1, 2, 1), (x(4, 5, 3),)),
    "unfold with gaps": (lambda a: a.unfold(2, 2, 3), (x(4, 3, 9),)),
    "reshape to one": (lambda a: a.reshape(a.shape[0], 1, -1), (CUBE,)),
    "reshape past a kept axis": (lambda a: a.reshape(a.shape[0], 2, 9), (CUBE,)),
    "an empty reshape": (lambda a: a[:, :0].reshape(a.shape[0], 0, 2, 3), (CUBE,)),
}


EXPANDED: dict[str, Case] = {
    "one axis": (lambda a: a.expand(4, 3, 5), (x(4, 3, 1),)),
    "the same": (lambda a: a.expand(4, 3, 6) + 1, (CUBE,)),
    "two and a new one": (lambda a: a.expand(2, 4, 3, 5), (x(4, 1, 5),)),
}


def test_shapes() -> None:
    together(SHAPES)
    together(EXPANDED, axes=None)


DROPOUTS = {
    "elements": torch.dropout, "channels": torch.feature_dropout,
    "elements to the lowest": torch.alpha_dropout,
    "channels to the lowest": torch.feature_alpha_dropout,
}  # fmt: skip


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_of_nothing_and_of_everything(name: str) -> None:
    dropout = DROPOUTS[name]
    for p, train in ((0.5, False), (0.0, True), (1.0, True)):
        run = session(lowered(lambda a: dropout(a, p, train), (CUBE,)))  # noqa: B023
        holes = CUBE.masked_fill(CUBE > 1, math.inf)
        same(run.run(None, {"a": holes.numpy()})[0], dropout(holes, p, train).numpy(), name)
    with pytest.raises(UnsupportedError, match="draws random numbers"):
        lowered(lambda a: dropout(a, 0.5, True), (CUBE,))


RESIZED: dict[str, Case] = {
    "the same": (lambda a: a.clone().resize_(4, 3, 6) + 1, (CUBE,)),
    "as many elements": (lambda a: a.clone().resize_(8, 9), (CUBE,)),
    "fewer": (lambda a: a.clone().resize_(3, 5), (CUBE,)),
    "none": (lambda a: a.clone().resize_(0, 5), (CUBE,)),
    "as another": (lambda a: a.clone().resize_as_(torch.ones(2, 3)), (CUBE,)),
}


def test_resizing_to_no_more_elements() -> None:
    together(RESIZED, axes=None)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda a: a.clone().resize_(100), "nothing has written"),
        (lambda a: a.transpose(0, 2).clone().resize_(3, 5), "not in order"),
    ],
)
def test_resizing_that_shows_other_memory_is_refused(function: Function, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        lowered(function, (CUBE,))


def test_parts_between_places_that_a_tensor_holds() -> None:
    def parts(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return torch.tensor_split(a, b, dim=1)

    run = session(lowered(parts, (MATRIX, torch.tensor([1, 3])), {"a": ROWS}))
    for places in ([1, 3], [0, 6], [2, 9], [-2, -1], [4, 2], [3, 3]):
        for rows in (2, 4):
            agree(parts, [MATRIX[:rows], torch.tensor(places)], run)


VOLUMES = [((1, 3, 2, 2, 2), 2), ((2, 3, 5, 4, 6), 3), ((1, 3, 1, 3, 1), 4)]


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(("mode", "padding"), [(m, p) for m in (0, 1) for p in (0, 1, 2)])
def test_points_in_volumes(mode: int, padding: int, corners: bool) -> None:
    def sampled(a: Tensor, b: Tensor) -> Tensor:
        return torch.grid_sampler_3d(a, b, mode, padding, corners)

    for dtype in (torch.float32, torch.float64):
        example = (x(2, 3, 3, 4, 5).to(dtype), x(2, 2, 3, 4, 3).to(dtype))
        axes = {"a": {0: "batch", 2: "depth", 3: "height", 4: "width"}, "b": {0: "batch"}}
        if (mode, padding) == (1, 2):
            with pytest.raises(UnsupportedError, match="which the runtime rounds"):
                lowered(sampled, example, axes)
            continue
        run = session(lowered(sampled, example, axes))
        for shape, seed in VOLUMES:
            points = 1.5 * x(shape[0], 2, 3, 4, 3, seed=seed)
            if padding != 2:
                points[0, 0, 0, :3] = torch.tensor([[1e9, -1e9, 0], [NAN, 0, 0], [math.inf, 0, 0]])
            agree(sampled, [x(*shape).to(dtype), points.to(dtype)], run)


REDUCTIONS: dict[str, Case] = {
    "mean of ints as floats": (lambda a: a.mean(1, dtype=torch.float32), (WHOLE,)),
    "mean over the first": (lambda a: a.mean(0), (CUBE,)),
    "sum keeping axes": (lambda a: a.sum((0, 2), keepdim=True), (CUBE,)),
    "sum over none named": (lambda a: a.sum([]), (CUBE,)),
    "sum of a number": (lambda a: a[0, 0].sum(0), (MATRIX,)),
    "prod keeping": (lambda a: a.prod(1, keepdim=True), (CUBE,)),
    "largest of all": (lambda a: a.max(), (CUBE,)),
    "amax keeping": (lambda a: a.amax(1, keepdim=True), (CUBE,)),
    "amin over the first": (lambda a: a.amin(0), (CUBE,)),
    "min along": (lambda a: tuple(a.min(1, keepdim=True)), (CUBE,)),
    "max along the first": (lambda a: tuple(a.max(0)), (CUBE,)),
    "argmin of all": (lambda a: a.argmin(), (CUBE,)),
    "argmax of all, kept": (lambda a: a.argmax(None, keepdim=True), (CUBE,)),
    "argmin along the first": (lambda a: a.argmin(0), (CUBE,)),
    "argmax of large ints": (lambda a: a.argmax(1), (WHOLE + 2**40,)),
    "argmax of bools": (lambda a: a.int().argmax(1), (TRUTHS,)),
    "any of several": (lambda a: a.any((1, 2), keepdim=True), (TRUTH_CUBE,)),
    "all of several": (lambda a: a.all((0, 2)), (TRUTH_CUBE,)),
    "any of all": (lambda a: a.any(), (TRUTHS,)),
    "all of all": (lambda a: a.all(), (TRUTHS,)),
    "all of floats, kept": (lambda a: (a * (a > 0)).all(1, keepdim=True), (MATRIX,)),
    "var of all": (lambda a: a.var(), (CUBE,)),
    "var of all, biased": (lambda a: a.var(unbiased=False), (CUBE,)),
    "var corrected by two": (lambda a: a.var(1, correction=2), (CUBE,)),
    "var of several, kept": (lambda a: a.var((0, 2), keepdim=True), (CUBE,)),
    "std of the first": (lambda a: a.std(0), (CUBE,)),
    "std uncorrected": (lambda a: a.std(2, correction=0), (CUBE,)),
    "std of all, biased": (lambda a: a.std(unbiased=False), (CUBE,)),
    "norm by least": (lambda a: torch.linalg.vector_norm(a, -math.inf, dim=1), (CUBE,)),
    "norm by largest, kept": (
        lambda a: torch.linalg.vector_norm(a, math.inf, dim=1, keepdim=True),
        (CUBE,),
    ),
    "norm of all": (lambda a: torch.linalg.vector_norm(a), (CUBE,)),
    "norm of order 1, given": (lambda a: a.norm(1, dim=1), (CUBE,)),
    "norm of no order": (lambda a: torch.ops.aten.norm.ScalarOpt_dim(a, None, [1]), (CUBE,)),
    "softmax of the first": (lambda a: a.softmax(0), (CUBE,)),
    "log_softmax of the first": (lambda a: a.log_softmax(0), (CUBE,)),
    "logsumexp of two, kept": (lambda a: a.logsumexp((0, 2), keepdim=True), (CUBE,)),
    "cumsum of the first": (lambda a: a.cumsum(0), (CUBE,)),
    "the largest two": (lambda a: tuple(a.topk(2, dim=1)), (CUBE,)),
    "the smallest two": (lambda a: tuple(a.topk(2, dim=-1, largest=False)), (CUBE,)),
    "sorted upwards": (lambda a: tuple(a.sort(1)), (CUBE,)),
    "sorted downwards, stable": (
        lambda a: tuple(torch.sort(a, stable=True, dim=2, descending=True)),
        (CUBE,),
    ),
    "order of the first": (lambda a: a.argsort(0, descending=True), (CUBE,)),
}


def test_reductions() -> None:
    together(REDUCTIONS)


def put(a: Tensor, value: Any, *where: Any, **how: Any) -> Tensor:
    return a.index_put(tuple(torch.tensor(w) for w in where), torch.tensor(value), **how)


INDICES: dict[str, Case] = {
    "select the first": (lambda a: a.select(1, 0), (CUBE,)),
    "select by a size": (lambda a: a[:, a.shape[0] - 3], (CUBE,)),
    "index the last axis": (lambda a: a[..., torch.tensor([5, 0, 0])], (CUBE,)),
    "index with two axes": (lambda a: a[:, torch.tensor([[2, 0], [1, 1]])], (CUBE,)),
    "index the first two": (lambda a: a[torch.tensor([1, 0]), torch.tensor([2, 1])], (CUBE,)),
    "index two in the middle": (
        lambda a: a[:, torch.tensor([1, 0]), torch.tensor([[2], [1]])],
        (DEEP,),
    ),
    "index the last two": (
        lambda a: a[:, :, torch.tensor([1, 0]), torch.tensor([1, 1])],
        (DEEP,),
    ),
    "index the first and third": (
        lambda a: a[torch.tensor([1, 0]), :, torch.tensor([1, 2])],
        (DEEP,),
    ),
    "index apart, from the second": (
        lambda a: a[:, torch.tensor([1, 0]), :, torch.tensor([[1], [0]])],
        (DEEP,),
    ),
    "index by int32": (lambda a: a[:, torch.tensor([1, 0], dtype=torch.int32)], (CUBE,)),
    "gather by int64 along the middle": (
        lambda a, i: a.gather(1, i),
        (CUBE, ints(4, 2, 6, low=0, high=3)),
    ),
    "scatter a number of another dtype": (
        lambda a, i: a.scatter(1, i, 2),
        (MATRIX, ints(4, 1, low=0)),
    ),
    "scatter all of it": (
        lambda a, i, s: a.scatter(1, i, s),
        (MATRIX, torch.arange(6).flip(0).repeat(4, 1), x(4, 6, seed=2)),
    ),
    "scatter a part of fewer rows": (
        lambda a, s: a.scatter(1, torch.tensor([[0, 2]]), s),
        (MATRIX, x(4, 3, seed=2)),
    ),
    "scatter_add with a larger source": (
        lambda a, i, s: a.scatter_add(1, i, s),
        (MATRIX, ints(4, 2, low=0), x(4, 5, seed=2)),
    ),
    "write the first": (lambda a: a.select_scatter(a[:, 1] * 2, 1, 0), (CUBE,)),
    "write one in the middle": (lambda a: a.select_scatter(a[:, 0], 1, 1), (CUBE,)),
    "write the last": (lambda a: a.select_scatter(a[:, 0], 1, -1), (CUBE,)),
    "write the last but one": (lambda a: a.select_scatter(a[:, 0], 1, -2), (CUBE,)),
    "write along the last axis": (lambda a: a.select_scatter(a[..., 0], -1, 2), (CUBE,)),
    "write a slice": (lambda a: a.slice_scatter(a[:, :1] * 2, 1, 1, 2), (CUBE,)),
    "write a slice to the end": (lambda a: a.slice_scatter(a[:, :2] * 2, 1, 1), (CUBE,)),
    "write a slice from the start": (lambda a: a.slice_scatter(a[:, :2] * 2, 1, end=2), (CUBE,)),
    "write nothing": (lambda a: a.slice_scatter(a[:, :0], 1, 1, 1) + 1, (CUBE,)),
    "put a number": (lambda a: put(a, 2.0, [0, 1]), (CUBE,)),
    "put and add": (lambda a: put(a, 2.0, [0, 0], accumulate=True), (CUBE,)),
    "put rows": (lambda a: a.index_put((torch.tensor([1, 0]),), a[:2] * 2), (CUBE,)),
    "put at two axes": (lambda a: put(a, 2.0, [0, 1], [[2], [1]]), (CUBE,)),
    "put by a mask": (lambda a: a.index_put((a > 0,), torch.tensor(2.0)), (CUBE,)),
    "put by a mask of rows": (lambda a: a.index_put((a[:, 0] > 0,), torch.tensor(2.0)), (MATRIX,)),
    "add by a mask of rows": (
        lambda a: a.index_put((a[..., 0] > 0,), torch.tensor(2.0), accumulate=True),
        (CUBE,),
    ),
    "one_hot of one number": (lambda i: F.one_hot(i[0, 0], 4), (ints(4, 3, low=0, high=4),)),
    "one_hot of two axes": (lambda i: F.one_hot(i, 4), (ints(4, 3, low=0, high=4),)),
    "int8 rows": (
        lambda i: strop.embedding_int8(TABLE, strop.int8_scale(TABLE), i),
        (ints(4, 3, low=0, high=7),),
    ),
    "filled": (lambda a: torch.fill(a, 3) + a.new_full((1,), 2.0), (CUBE,)),
    "filled like": (lambda a: torch.full_like(a, 2), (CUBE,)),
    "ones like, zeros like": (lambda a: torch.ones_like(a) + torch.zeros_like(a), (CUBE,)),
    "new ones": (lambda a: a.new_ones(a.shape[0], 2), (CUBE,)),
    "a number alone": (lambda a: a + torch.full((), 2.0), (CUBE,)),
    "a range from one": (lambda a: a[:, 0] + torch.arange(1, a.shape[0] + 1), (MATRIX,)),
    "a range by twos": (lambda a: torch.arange(1, 2 * a.shape[0], 2) + a[:, 0], (MATRIX,)),
}
TABLE = x(7, 5, seed=5)


def test_indices() -> None:
    together(INDICES)


WEIGHT, BIAS = x(5, 6, seed=7), x(5, seed=8)
GAIN, SHIFT, SQUARE = positive(6), x(6, seed=4), x(3, 6, seed=9)
SQUARES = x(4, 3, 3)
PRODUCTS: dict[str, Case] = {
    "a matrix without a bias": (lambda a: F.linear(a, WEIGHT), (MATRIX,)),
    "a vector's weight with a bias": (lambda a: F.linear(a, WEIGHT[0], BIAS[0]), (CUBE,)),
    "addmm as it is": (lambda a: torch.addmm(BIAS, a, WEIGHT.t()), (MATRIX,)),
    "addmm of twice": (lambda a: torch.addmm(BIAS, a, WEIGHT.t(), beta=2, alpha=3), (MATRIX,)),
    "baddbmm as it is": (lambda a, b: torch.baddbmm(a, b, b.mT), (SQUARES, CUBE)),
    "baddbmm without the addend": (
        lambda a, b: torch.baddbmm(a * math.nan, b, b.mT, beta=0),
        (SQUARES, CUBE),
    ),
    "baddbmm of half": (lambda a, b: torch.baddbmm(a, b, b.mT, beta=0.5), (SQUARES, CUBE)),
    "stored int8": (
        lambda a: a @ strop.stored_int8(WEIGHT, strop.int8_scale(WEIGHT)).t(),
        (MATRIX,),
    ),
    "layer norm of small values": (lambda a: F.layer_norm(a * 1e-3, (6,), eps=1e-3), (CUBE,)),
    "layer norm of two axes": (lambda a: F.layer_norm(a, (3, 6), SQUARE, SQUARE), (CUBE,)),
    "rms norm of small values": (lambda a: F.rms_norm(a * 1e-3, (6,), GAIN, 1e-3), (CUBE,)),
    "rms norm of two axes": (lambda a: F.rms_norm(a, (3, 6)), (CUBE,)),
    "rms norm by its own epsilon": (lambda a: F.rms_norm(a * 1e-4, (6,)), (CUBE,)),
    "group norm with a large epsilon": (lambda a: F.group_norm(a, 3, eps=0.5), (IMAGE_ROW,)),
    "instance norm by statistics": (
        lambda a: F.instance_norm(a, SHIFT, GAIN, SHIFT, GAIN, use_input_stats=False, eps=0.5),
        (IMAGE_ROW,),
    ),
    "instance norm with a large epsilon": (lambda a: F.instance_norm(a, eps=0.5), (IMAGE_ROW,)),
    "batch norm without weights": (lambda a: F.batch_norm(a, SHIFT, GAIN, eps=0.5), (IMAGE_ROW,)),
}


def test_products_and_norms() -> None:
    together(PRODUCTS)


A, B = x(4, 3, 6), x(4, 3, 6, seed=1)
VARIANTS: dict[str, tuple[str, tuple[str, ...], dict[str, Function]]] = {
    "layer norm": (
        "strop.skip_layer_norm",
        ("sum", "add", "contrib"),
        {
            "whole": lambda a, b: strop.skip_layer_norm(a, b, GAIN, SHIFT, 0.5),
            "without a bias": lambda a, b: strop.skip_layer_norm(a, b, GAIN, None, 1e-5),
            "bare": lambda a, b: strop.skip_layer_norm(a, b, None, None, 1e-5),
        },
    ),
    "rms norm": (
        "strop.skip_rms_norm",
        ("sum", "contrib"),
        {
            "whole": lambda a, b: strop.skip_rms_norm(a, b, GAIN, 0.5),
            "bare": lambda a, b: strop.skip_rms_norm(a, b, None, 1e-5),
        },
    ),
    "bias and gelu": (
        "strop.bias_gelu",
        ("add_gelu", "contrib"),
        {
            "by erf": lambda a, b: strop.bias_gelu(a, SHIFT, "none") + b,
            "by tanh": lambda a, b: strop.bias_gelu(a, SHIFT, "tanh") + b,
        },
    ),
    "gated": (
        "strop.gated",
        ("standard", "contrib"),
        {
            kind: lambda a, b, kind=kind: strop.gated(a, b, kind)
            for kind in ("silu", "gelu", "gelu_tanh")
        },
    ),
}
EACH = [
    (v, one, form) for v, (_, ones, forms) in VARIANTS.items() for one in ones for form in forms
]


@pytest.mark.parametrize(("name", "variant", "form"), EACH)
def test_every_variant_gives_the_same(name: str, variant: str, form: str) -> None:
    target, _, forms = VARIANTS[name]
    both = {"a": {0: "rows"}, "b": {0: "rows"}}
    check(forms[form], (A, B), both, (A[:2], B[:2]), (target, variant))


def tables(rows: int, half: int) -> tuple[Tensor, Tensor]:
    return x(rows, 5, half, seed=2), x(rows, 5, half, seed=3)


@pytest.mark.parametrize("variant", ["standard", "composed"])
@pytest.mark.parametrize("half", [1, 2], ids=["part", "whole"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_rotations(variant: str, half: int, shared: bool, packed: bool) -> None:
    value = x(2, 5, 12) if packed else x(2, 3, 5, 4)
    cos, sin = tables(1 if shared else 2, half)

    def function(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return strop.rotary(a, b, c, 3)  # type: ignore[no-any-return]

    named = {0: "rows"}
    axes = {"a": named} if shared else {"a": named, "b": named, "c": named}
    others = (value[:1].repeat(3, *[1] * (value.dim() - 1)), *(t[:1] for t in (cos, sin)))
    if not shared:
        others = (others[0], *(t[:1].repeat(3, 1, 1) for t in (cos, sin)))
    check(function, (value, cos, sin), axes, others, ("strop.rotary", variant))


Q, K = x(2, 4, 3, 8), x(2, 2, 5, 8, seed=1)
MASKS: dict[str, Tensor] = {
    "each row": bools(2, 1, 3, 5),
    "each key": bools(2, 1, 1, 5),
    "each query": torch.zeros(2, 1, 3, 1),
    "rows and keys": bools(3, 5),
    "by head": x(1, 4, 3, 5),
    "all of a row hidden": torch.tensor([[False] * 5, [True] * 5, [True, False] * 2 + [True]]),
    "the lowest number in all of a row": torch.tensor(
        [[LOWEST] * 5, [0.0] * 5, [LOWEST, 0, 0, 0, 0]]
    ),
    "the lowest number with others": torch.tensor([[LOWEST, 0.0, 1.0, LOWEST, 2.0]] * 3),
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_masks(name: str) -> None:
    check(
        lambda q, k, m: strop.attention(q, k, k, m, 4, 2, 0.3, False),
        (Q, K, MASKS[name]),
    )


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("variant", ["standard", "contrib"])
def test_attention_whose_scores_are_bounded(variant: str, name: str) -> None:
    def bounded(causal: bool) -> Function:
        return lambda q, k, m: strop.attention(q * 5, k, k, m, 4, 2, 0.9, causal, 1.5)

    for causal in (False, True):
        model = lowered(bounded(causal), (Q, K, MASKS[name]), {}, ("strop.attention", variant))
        agree(bounded(causal), [Q, K, MASKS[name]], session(model))
    plain = strop.attention(Q * 5, K, K, MASKS[name], 4, 2, 0.9, False)
    assert (bounded(False)(Q, K, MASKS[name]) - plain).abs().max() > 0.1


def test_attention_on_packed_heads() -> None:
    inputs = (x(2, 3, 32), x(2, 5, 16, seed=1))
    both = {"a": {0: "rows"}, "b": {0: "rows"}}
    check(
        lambda q, k: strop.attention(q, k, k, None, 4, 2, 0.3, False),
        inputs,
        both,
        tuple(t[:1] for t in inputs),
    )


def test_elements_by_leading_indices_stay_in_their_order() -> None:
    i, j = torch.tensor([1, 0]), torch.tensor([2, 1])
    model = check(lambda a: a[i, j], (CUBE,))
    assert "Transpose" not in operators(model)
    assert "Transpose" in operators(check(lambda a: a[:, i, j], (CUBE,)))


def test_attention_that_is_causal() -> None:
    check(lambda q: strop.attention(q, q, q, None, 4, 4, 0.3, True), (Q,))


@pytest.mark.parametrize(
    ("hidden", "repaired"), [(-1e4, False), (LOWEST, True), (-math.inf, False)]
)
def test_only_masks_that_may_hold_the_lowest_number_are_repaired(
    hidden: float, repaired: bool
) -> None:
    def function(q: Tensor, m: Tensor) -> Tensor:
        mask = torch.zeros(3, 3).masked_fill(m, hidden) * 1.0
        return F.scaled_dot_product_attention(q, q, q, mask)

    model = check(function, (Q, torch.ones(3, 3, dtype=torch.bool).triu(1)))
    assert ("Equal" in operators(model)) == repaired


def test_a_mask_that_is_an_input_may_hold_the_lowest_number() -> None:
    def function(q: Tensor, m: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, m)

    def part(q: Tensor, m: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, m.split([1, 2])[0])

    assert "Equal" in operators(lowered(function, (Q, x(3, 3))))
    assert "Equal" in operators(lowered(part, (Q, x(3, 3))))
    assert "Equal" not in operators(lowered(function, (Q, bools(3, 3))))


def test_keys_for_all_batches_are_repeated_at_any_batch() -> None:
    inputs = (Q, K[:1])
    check(
        lambda q, k: strop.attention(q, k, k, None, 4, 2, 0.3, False),
        inputs,
        {"a": {0: "rows"}},
        (Q.repeat(2, 1, 1, 1), K[:1]),
    )


REFUSED: dict[str, tuple[Function, tuple[Tensor, ...], str]] = {
    "other heads": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k),
        (Q[:, :1], x(2, 4, 5, 8)),
        "repeated over the heads of the keys",
    ),
    "other batches": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k),
        (Q[:1], x(2, 4, 5, 8)),
        "repeated over the batch of the keys",
    ),
    "three axes": (
        lambda q: F.scaled_dot_product_attention(q, q, q),
        (Q[0],),
        "not [batch, heads, seq, size]",
    ),
    "second differences": (lambda a: a.diff(2), (MATRIX,), "order above 1"),
    "a norm of order 3": (lambda a: torch.linalg.vector_norm(a, 3), (MATRIX,), "norm of order 3"),
    "every second": (
        lambda a: a.slice_scatter(a[:, ::2], 1, 0, 6, 2),
        (MATRIX,),
        "every n-th element",
    ),
    "a shuffle of three axes": (lambda a: F.pixel_shuffle(a, 2), (x(8, 3, 3),), "pixel_shuffle"),
    "statistics of the batch": (
        lambda a: F.batch_norm(a, None, None, training=True),
        (IMAGE_ROW,),
        "statistics of the batch",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_row_cannot_do_it_refuses(name: str) -> None:
    function, inputs, says = REFUSED[name]
    with pytest.raises(UnsupportedError) as raised:
        lowered(function, inputs)
    assert says in str(raised.value)


def test_no_value_is_true_of_nothing() -> None:
    def found(a: Tensor) -> tuple[Tensor, ...]:
        return a.any(), a.any(0), a.all()

    run = session(lowered(found, [TRUTHS], {"a": {0: ("rows", 0, 9)}}))
    agree(found, [TRUTHS[:0]], run)
