"""Short-time Fourier transforms as convolutions: a kernel for each frequency, under the window."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, shape_of
from strop.passes.legalize.fourier import frames_table
from strop.passes.legalize.pairs import NotSplitError, Pairs, is_complex, real_dtype, splits

aten = torch.ops.aten


def _window(on: Pairs, node: Node, given: dict[str, Any]) -> Node:
    """The window, centred in a frame."""
    size, width = given["n_fft"], given["win_length"] or given["n_fft"]
    window = given["window"]
    if window is None:
        window = on.call(aten.ones.default, [width], dtype=real_dtype(node))
    left = (size - width) // 2
    around = [left, size - width - left]
    return on.call(aten.constant_pad_nd.default, window, around, 0.0)


@splits(aten.stft.default, aten.stft.center)
def stft(on: Pairs, node: Node, x: Node, *_: Any, **__: Any) -> Node:
    """[batch, samples] -> [batch, frequencies, frames, 2]; without a batch as well."""
    given = arguments(node)
    if is_complex(x) or given["onesided"] is False:
        raise NotSplitError("a short-time transform of complex signals, or with all frequencies")
    size, hop = given["n_fft"], given["hop_length"] or given["n_fft"] // 4
    single = len(shape_of(x)) == 1
    signal = on.call(aten.unsqueeze.default, x, 0) if single else x
    signal = on.call(aten.unsqueeze.default, signal, 1)
    if given.get("center"):
        around = [size // 2, size // 2]
        signal = on.call(aten.pad.default, signal, around, given["pad_mode"])
    kernel = frames_table(on, node, size, _window(on, node, given), forward=True)
    made = on.call(aten.conv1d.default, signal, kernel, None, [hop])
    if given["normalized"]:
        made = on.call(aten.mul.Tensor, made, size**-0.5)
    made = on.call(aten.unflatten.int, made, 1, [size // 2 + 1, 2])
    made = on.call(aten.permute.default, made, [0, 1, 3, 2])
    return on.call(aten.squeeze.dim, made, 0) if single else made


@splits(aten.istft.default)
def istft(on: Pairs, node: Node, x: Node, *_: Any, **__: Any) -> Node:
    """[batch, frequencies, frames] -> [batch, samples]: frames are added up where they overlap."""
    given = arguments(node)
    size, hop = given["n_fft"], given["hop_length"] or given["n_fft"] // 4
    if is_complex(node) or shape_of(x)[-2] != size // 2 + 1:
        raise NotSplitError(
            "an inverse short-time transform to complex signals, or of all frequencies"
        )
    single = len(shape_of(x)) == 2
    pair = on.call(aten.unsqueeze.default, on.pair(x), 0) if single else on.pair(x)
    pair = on.call(aten.permute.default, pair, [0, 1, 3, 2])
    rows = on.call(aten.flatten.using_ints, pair, 1, 2)
    window = _window(on, node, given)
    kernel = frames_table(on, node, size, window, forward=False)
    factor = size**0.5 if given["normalized"] else 1.0
    kernel = on.call(aten.mul.Tensor, kernel, factor / size)
    signal = on.call(aten.conv_transpose1d.default, rows, kernel, None, [hop])
    weight = _weight(on, node, rows, window, size, hop)
    parts = [_cut(on, t, size, given) for t in (signal, weight)]
    made = on.call(aten.squeeze.dim, on.call(aten.div.Tensor, *parts), 1)
    return on.call(aten.squeeze.dim, made, 0) if single else made


def _weight(on: Pairs, node: Node, rows: Node, window: Node, size: int, hop: int) -> Node:
    """[1, 1, samples]: how much all windows together weigh at each sample."""
    squares = on.call(aten.mul.Tensor, window, window)
    kernel = on.call(aten.view.default, squares, [1, 1, size])
    count = on.size(rows, 2)
    ones = on.call(aten.ones.default, [1, 1, count], dtype=real_dtype(node))
    return on.call(aten.conv_transpose1d.default, ones, kernel, None, [hop])


def _cut(on: Pairs, signal: Node, size: int, given: dict[str, Any]) -> Node:
    """Without what padding added in front, and as long as was asked for."""
    start, length = size // 2 if given["center"] else 0, given["length"]
    if length is None:
        end = on.size_of(operator.sub, on.size(signal, 2), start)
        return on.call(aten.slice.Tensor, signal, 2, start, end)
    return on.call(aten.slice.Tensor, signal, 2, start, on.size_of(operator.add, start, length))
