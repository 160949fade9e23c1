"""The methods that choose whole numbers, each against NumPy or against what it promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.passes.quantize.methods import METHODS, Chosen, Layer, MethodName, Moments, Settings
from strop.passes.quantize.methods.awq import channel_scale, scaled
from strop.passes.quantize.methods.squared_error import least_error


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(rows: int = 512, size: int = 64) -> Tensor:
    """Rows whose channels depend on each other, a few of them large."""
    mixed = drawn(rows, size) @ (torch.eye(size) + 0.3 * drawn(size, size, seed=1))
    mixed[:, ::13] *= 6
    return mixed


def layer(bits: int = 3, groups: int = 2, symmetric: bool = False) -> Layer:
    moments = Moments()
    for part in inputs().split(100):
        moments.add(part)
    return Layer(drawn(24, 64, seed=2), groups, bits, symmetric, moments)


def chosen(method: MethodName, of: Layer, settings: Settings | None = None) -> Chosen:
    with torch.no_grad():
        return METHODS[method](of, settings or Settings())


def error(found: Chosen, of: Layer) -> float:
    """The mean squared error of the outputs on the data."""
    weight = of.weight if found.weight is None else found.weight
    rounded = of.rounded(weight, found.scale, found.zero_point)
    return float((inputs() @ (rounded - of.weight).t()).square().mean())


def test_moments_are_those_of_all_rows_whatever_the_batches() -> None:
    one, several, x = Moments(), Moments(), inputs().reshape(8, 64, 64)
    one.add(x)
    for part in x:
        several.add(part)
    rows = x.reshape(-1, 64).double().numpy()
    np.testing.assert_allclose(one.mean(), rows.T @ rows / len(rows), atol=1e-10)
    np.testing.assert_allclose(several.mean(), one.mean(), atol=1e-10)
    assert one.rows == several.rows == 512
    change = drawn(3, 64, seed=5)
    wanted = ((rows @ change.double().numpy().T) ** 2).sum(1).mean()
    assert float(one.error(change)) == pytest.approx(wanted)


def gptq_in_numpy(of: Layer, scale: Any, zero: Any, order: Any, damping: float) -> Any:
    """Column after column, with the inverse of what is left of the moments (Frantar, OBQ 2022)."""
    assert of.moments is not None
    moments = of.moments.mean().numpy()[np.ix_(order, order)]
    moments = moments + np.eye(len(order)) * damping * np.diagonal(moments).mean()
    inverse = np.linalg.inv(moments)
    left, made = of.weight.double().numpy()[:, order], np.empty(of.weight.shape)
    size = of.weight.shape[1] // of.groups
    for i, place in enumerate(order):
        s, z = scale[:, place // size], zero[:, place // size]
        made[:, place] = (np.clip(np.round(left[:, i] / s) + z, 0, 2**of.bits - 1) - z) * s
        off = (left[:, i] - made[:, place]) / inverse[i, i]
        left = left - np.outer(off, inverse[i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, i] = 1.0  # done; its row and column are 0 otherwise
    return made


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gptq_is_the_update_of_one_column_after_another(symmetric: bool, act_order: bool) -> None:
    of = layer(symmetric=symmetric)
    assert of.moments is not None
    found = chosen("gptq", of, Settings(act_order=act_order, damping=0.02))
    zero = found.zero_point
    zeros = np.full(found.scale.shape, 4) if zero is None else zero.numpy()
    order = np.arange(64)
    if act_order:
        order = np.argsort(-of.moments.mean().diagonal().numpy(), kind="stable")
    wanted = gptq_in_numpy(of, found.scale.double().numpy(), zeros, order, 0.02)
    assert found.weight is not None
    # A tie may fall to either side, and moves what comes after it.
    assert np.mean(np.abs(found.weight.numpy() - wanted) < 1e-5) > 0.99


def test_scales_have_the_least_squared_error_of_those_that_are_tried() -> None:
    of = layer(bits=2)
    widest, zero = of.covering()
    assert zero is not None
    found = chosen("mse", of).scale

    def errors(scale: Tensor) -> Tensor:
        off = of.rounded(of.weight, scale, zero) - of.weight
        return off.square().unflatten(1, (2, -1)).sum(2)

    tried = torch.stack([errors(widest * share / 100) for share in range(100, 38, -2)])
    torch.testing.assert_close(errors(found), tried.amin(0))
    assert bool((found < widest).any())


def test_blocks_give_the_error_of_outputs_where_one_group_errs() -> None:
    of = layer()
    blocks, change = of.blocks(), torch.zeros(64)
    change[32:] = drawn(32, seed=4)
    part = change[32:]
    wanted = float((inputs() @ change).square().mean())
    assert float(part @ blocks[1] @ part) == pytest.approx(wanted, rel=1e-3)


def test_scales_that_see_the_data_make_outputs_err_less() -> None:
    of = layer()
    with torch.no_grad():
        blind, seeing = (Chosen(*least_error(of, blocks)) for blocks in (None, of.blocks()))
    assert error(seeing, of) < error(blind, of)


@pytest.mark.parametrize("bits", [2, 4])
def test_hqq_forgives_outliers(bits: int) -> None:
    weight = drawn(16, 64, seed=3)
    weight[:, 5] *= 12
    of = replace(layer(bits, groups=1), weight=weight)

    def cost(method: MethodName) -> float:
        found = chosen(method, of)
        return float(
            (of.rounded(weight, found.scale, found.zero_point) - weight).abs().pow(0.7).sum()
        )

    assert cost("hqq") < cost("mse") < cost("nearest")


def test_adaround_takes_the_number_above_or_below() -> None:
    of = layer()
    found = chosen("adaround", of)
    assert found.weight is not None and found.zero_point is not None
    off = (found.weight - of.weight).unflatten(1, (2, -1)).abs() / found.scale[:, :, None]
    whole = torch.ops.strop.whole_numbers(of.weight, found.scale, found.zero_point, 3)
    inside = ((whole > 0) & (whole < 7)).unflatten(1, (2, -1))
    assert float(off[inside].max()) <= 1 + 1e-4
    assert error(found, of) < 0.7 * error(chosen("mse", of), of)


def test_a_scale_of_channels_is_taken_only_if_outputs_err_less() -> None:
    of = layer()
    scale = channel_scale([(of, torch.arange(64))], 64)
    assert scale is not None and bool((scale > 0).all())
    moved = scaled(of, scale)
    assert moved.moments is not None and of.moments is not None

    def cost(one: Layer) -> float:
        assert one.moments is not None
        return float(one.moments.error(one.rounded(one.weight, *one.covering()) - one.weight))

    assert cost(moved) < cost(of)
    # The function itself is the same: moments and weight move against each other.
    whole = [float(one.moments.error(one.weight)) for one in (of, moved) if one.moments]
    assert whole[0] == pytest.approx(whole[1], rel=1e-5)
    alike = Moments()
    alike.add(torch.eye(64))
    assert channel_scale([(replace(of, moments=alike), torch.arange(64))], 64) is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_chosen_lies_on_its_grid(method: MethodName, symmetric: bool) -> None:
    of = layer(symmetric=symmetric)
    found = chosen(method, of, Settings(steps=20))
    fits = (found.scale != 0) if symmetric else (found.scale > 0)
    assert bool(fits.all()) and (found.zero_point is None) == symmetric
    if found.weight is not None:
        again = of.rounded(found.weight, found.scale, found.zero_point)
        torch.testing.assert_close(again, found.weight, rtol=0, atol=1e-5)


def test_hqq_fits_scales_of_either_sign() -> None:
    of = layer(symmetric=True)
    start, _ = least_error(of)
    moved = chosen("hqq", of, Settings()).scale != start
    assert all(bool(moved[sign].any()) for sign in (start > 0, start < 0))
