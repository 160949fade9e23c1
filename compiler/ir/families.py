"""Families of ATen operators that passes handle in the same way."""

from __future__ import annotations

import torch

aten = torch.ops.aten

ADD = (aten.add.Tensor, aten.add.Scalar)
MUL = (aten.mul.Tensor, aten.mul.Scalar)
DIV = (aten.div.Tensor, aten.div.Scalar)
PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.mm.default)
CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
)
TRANSPOSED_CONVOLUTIONS = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
# The first argument again, element for element.
COPIES = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
)
DROPOUTS = (
    aten.alpha_dropout.default,
    aten.dropout.default,
    aten.feature_alpha_dropout.default,
    aten.feature_dropout.default,
)
CASTS = (
    aten._to_copy.default,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
)
PADS = (aten.pad.default, aten.constant_pad_nd.default)
ZEROS = (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)
# The same elements in the same order, under another shape.
VIEWS = (
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.unflatten.int,
    aten.view.default,
)
EXPANSIONS = (aten.expand.default, aten.expand_as.default)
