"""Caches in another dtype than the model's own: there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from strop.compiler.ir.contract import DTYPE_NAMES, Contract, Stored, TensorSpec
from strop.compiler.ir.dialect.cached_attention import cache_int8

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def as_given(spec: TensorSpec) -> TensorSpec:
    """The input or output of the model that a program keeps like this."""
    return replace(spec, dtype=spec.stored.of, stored=None) if spec.stored else spec


def storing(contract: Contract, dtype: torch.dtype, kept: Mapping[str, Stored]) -> Contract:
    """A contract with caches in another dtype, by the names of inputs and outputs."""

    def changed(spec: TensorSpec) -> TensorSpec:
        if spec.name not in kept:
            return spec
        return replace(spec, dtype=DTYPE_NAMES[dtype], stored=kept[spec.name])

    inputs, outputs = (tuple(map(changed, s)) for s in (contract.inputs, contract.outputs))
    return replace(contract, inputs=inputs, outputs=outputs)


def to_stored(cache: Tensor, spec: TensorSpec) -> Tensor:
    """A cache of the model's own, [batch, heads, places, size] float, as a program takes it."""
    assert spec.stored is not None
    if not spec.stored.scales:
        return cache.to(_DTYPES[spec.dtype])
    return cache_int8(cache, _scales(spec.stored, cache))


def from_stored(cache: Tensor, spec: TensorSpec) -> Tensor:
    """What a program gives, in the model's own numbers."""
    assert spec.stored is not None
    wide = cache.to(_DTYPES[spec.stored.of])
    return wide * _scales(spec.stored, wide) if spec.stored.scales else wide


def _scales(stored: Stored, like: Tensor) -> Tensor:
    """[1, heads, 1, size], as the caches are laid out."""
    _, heads, _, size = like.shape
    return torch.tensor(stored.scales, dtype=like.dtype).reshape(1, heads, 1, size)
