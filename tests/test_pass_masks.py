"""Which computed masks are read as causal or padding, and which only look alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor

from strop.passes.cleanup.masks import CanonicalMasks
from strop.passes.cleanup.noops import Noops

SEED = torch.Generator().manual_seed(1)
Q = torch.randn(2, 2, 5, 4, generator=SEED)
PADDING = torch.tensor([[True] * 5, [True, True, True, False, False]])
IDS = torch.arange(5)[None]
LONG = torch.arange(8)

# A mask from the indices of five positions and the padding, [batch, keys].
Mask = Callable[[Tensor, Tensor], Tensor]


def causal(i: Tensor) -> Tensor:
    return i[None, :] <= i[:, None]


def padded(padding: Tensor, rows: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
    """[batch, 1, 1, keys], looked up by index grids."""
    rows = torch.arange(padding.shape[0])[:, None, None, None] if rows is None else rows
    keys = torch.arange(padding.shape[1])[None, None, None, :] if keys is None else keys
    return padding[rows, keys]


def attention(mask: Mask) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, padding: F.scaled_dot_product_attention(
        q, q, q, mask(torch.arange(5), padding)
    )


# What is read: the mask, whether it is causal, and whether it holds the padding.
READ: dict[str, tuple[Mask, bool, bool]] = {
    "keys <= queries": (lambda i, p: causal(i), True, False),
    "queries >= keys": (lambda i, p: i[:, None] >= i[None, :], True, False),
    "a batch and a head axis": (lambda i, p: causal(i)[None, None], True, False),
    "expanded": (lambda i, p: causal(i)[None, None].expand(2, 2, 5, 5), True, False),
    "cast to what it is": (lambda i, p: causal(i).to(torch.bool), True, False),
    "indices as floats": (lambda i, p: causal(i.float()), True, False),
    "indices as doubles": (lambda i, p: causal(i.double()), True, False),
    "indices as int32": (lambda i, p: causal(i.int()), True, False),
    "zero added": (lambda i, p: causal(i + 0), True, False),
    "the first of more indices": (lambda i, p: causal(torch.arange(8)[:5]), True, False),
    "indices that are kept": (lambda i, p: IDS.unsqueeze(2) >= IDS, True, False),
    "padding": (lambda i, p: padded(p), False, True),
    "both": (lambda i, p: causal(i) & padded(p), True, True),
    "both, by name": (lambda i, p: torch.logical_and(causal(i), padded(p)), True, True),
    "and ones": (lambda i, p: causal(i) & torch.ones(5, 5, dtype=torch.bool), True, False),
    "and new ones": (lambda i, p: causal(i) & p.new_ones((5, 5)), True, False),
    "and ones that are kept": (lambda i, p: causal(i) & KEPT_ONES, True, False),
    "and ones with more axes": (
        lambda i, p: causal(i) & torch.ones(5, dtype=torch.bool)[None, :],
        True,
        False,
    ),
    "and not below zero": (lambda i, p: causal(i) & (i >= 0), True, False),
    "and above minus one": (lambda i, p: causal(i) & (i > -1), True, False),
    "and far from below": (lambda i, p: causal(i) & (i >= -7), True, False),
    "the first of a longer one": (lambda i, p: causal(LONG)[:5, :5], True, False),
    "and the first of longer ones": (
        lambda i, p: causal(i) & torch.ones(8, 5, dtype=torch.bool)[:5],
        True,
        False,
    ),
}
KEPT_ONES = torch.ones(5, 5, dtype=torch.bool)


@pytest.mark.parametrize("case", READ)
def test_masks_are_read_back(case: str) -> None:
    mask, is_causal, has_padding = READ[case]
    before = program_of(attention(mask), Q, PADDING)
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 1}
    text = body(result.program)
    assert (", 0.0, True" in text) == is_causal
    assert ("%unsqueeze_default_1" in text.splitlines()[-2]) == has_padding
    if not (is_causal and has_padding):
        # With both, eager torch runs only what its fused kernel takes.
        same_numbers(before, result.program, Q, PADDING, tolerance=1e-6)


HOLED = KEPT_ONES.clone()
HOLED[3, 1] = False
COLUMN = torch.arange(5)[:, None]
LATER = torch.arange(1, 6)
FLOATS = torch.arange(5.0)
EXCHANGED = torch.tensor([1, 0])
ONE = torch.zeros(1, dtype=torch.int64)

KEPT: dict[str, Mask] = {
    "queries <= keys": lambda i, p: i[:, None] <= i[None, :],
    "keys >= queries": lambda i, p: i[None, :] >= i[:, None],
    "keys < queries": lambda i, p: i[None, :] < i[:, None],
    "queries > keys": lambda i, p: i[:, None] > i[None, :],
    "shifted indices": lambda i, p: i[None, :] + 1 <= i[:, None],
    "indices shifted by a number within": lambda i, p: i[None, :] + 0.5 <= i[:, None],
    "indices from one": lambda i, p: torch.arange(1, 6)[None, :] <= i[:, None],
    "kept indices from one": lambda i, p: LATER[None, :] <= i[:, None],
    "kept indices as floats": lambda i, p: FLOATS[None, :] <= i[:, None],
    "a kept column": lambda i, p: i[None, :] >= COLUMN,
    "one kept index": lambda i, p: i[:, None] >= ONE,
    "the last of more indices": lambda i, p: torch.arange(8)[3:][None, :] <= i[:, None],
    "every second index": lambda i, p: torch.arange(10)[::2][None, :] <= i[:, None],
    "indices in a dtype too small": lambda i, p: causal(i.half()),
    "a part of causal": lambda i, p: causal(torch.arange(8))[:5, 3:],
    "the first part of causal": lambda i, p: causal(torch.arange(8))[:, :5][3:],
    "an axis between": lambda i, p: causal(i)[:, None, :][:2],
    "truth as numbers": lambda i, p: causal(i).float(),
    "ones as numbers": lambda i, p: torch.ones(5, 5),
    "or": lambda i, p: causal(i) | padded(p),
    "causal and another": lambda i, p: causal(i) & p[:, None, None, :],
    "indices joined": lambda i, p: (i[None, :] & i[:, None]).bool(),
    "kept, with a hole": lambda i, p: causal(i) & HOLED,
    "from one": lambda i, p: causal(i) & (i >= 1),
    "above zero": lambda i, p: causal(i) & (i > 0),
    "from a half": lambda i, p: causal(i) & (i >= 0.5),
    "an input from zero": lambda i, p: causal(i) & (p.long()[0] >= 0),
    "an input above minus one": lambda i, p: causal(i) & (p.long()[0] > -1),
    "at most zero": lambda i, p: causal(i) & (i <= 0),
    "the padding itself": lambda i, p: p[:, None, None, :],
    "padding of another rank": lambda i, p: padded(
        p, torch.arange(2)[:, None, None], torch.arange(5)[None, None, :]
    ).unsqueeze(1),
    "padding by head": lambda i, p: padded(p, torch.arange(2)[None, :, None, None]),
    "padding by query": lambda i, p: padded(p, None, torch.arange(5)[None, None, :, None]),
    "padding of the first for all": lambda i, p: padded(
        p, torch.arange(1)[:, None, None, None], i[None, None, None, :].expand(2, 1, 1, 5)
    ),
    "padding of the first alone": lambda i, p: padded(p, torch.arange(1)[:, None, None, None]),
    "padding with batches exchanged": lambda i, p: padded(p, EXCHANGED[:, None, None, None]),
    "padding with keys exchanged": lambda i, p: padded(p, None, (4 - i)[None, None, None, :]),
    "padding of one row": lambda i, p: p[0][i][None, None, None, :],
    "numbers looked up": lambda i, p: padded(p.long()).bool(),
    "a longer padding cut": lambda i, p: padded(torch.cat((p, p), 1), None, i[None, None, None, :]),
    "the first of a longer padding": lambda i, p: padded(torch.cat((p, p), 1))[..., :5],
    "the first of a longer one and padding": lambda i, p: (
        causal(LONG) & padded(torch.cat((p, ~p[:, :3]), 1))
    )[..., :5, :5],
    "two axes of a third": lambda i, p: padded(p[:, :, None].expand(2, 5, 5))[:, 0],
}


@pytest.mark.parametrize("case", KEPT)
def test_masks_that_only_look_alike_are_kept(case: str) -> None:
    program = program_of(attention(KEPT[case]), Q, PADDING)
    assert_left_alone(CanonicalMasks(), program, "the mask is not causal-and-padding")


def test_padding_looked_up_in_the_wrong_order_is_kept() -> None:
    square = torch.ones(2, 2, dtype=torch.bool).tril()
    q = Q[:, :, :2]

    def model(q: Tensor, p: Tensor) -> Tensor:
        keys, rows = torch.arange(2)[None, None, None], torch.arange(2)[:, None, None, None]
        return F.scaled_dot_product_attention(q, q, q, p[keys, rows])

    program = program_of(model, q, square)
    assert_left_alone(CanonicalMasks(), program, "the mask is not causal-and-padding")


@pytest.mark.parametrize("axis", [1, 2])
def test_a_causal_mask_with_an_axis_within_or_behind_is_kept(axis: int) -> None:
    q = torch.randn(2, 5, 5, 4)

    def model(q: Tensor) -> Tensor:
        mask = causal(torch.arange(5)).unsqueeze(axis)
        return F.scaled_dot_product_attention(q, q, q, mask)

    assert_left_alone(CanonicalMasks(), program_of(model, q), "not causal-and-padding")


def test_attention_without_a_mask_is_no_miss() -> None:
    program = program_of(lambda q: F.scaled_dot_product_attention(q, q, q), Q)
    result = CanonicalMasks().run(program)
    assert not result.modified and not result.log.misses


def test_a_mask_behind_attention_without_one_is_read() -> None:
    def model(q: Tensor) -> Tensor:
        q = F.scaled_dot_product_attention(q, q, q)
        return F.scaled_dot_product_attention(q, q, q, causal(torch.arange(5)))

    before = program_of(model, Q)
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 1}
    same_numbers(before, result.program, Q, tolerance=1e-6)


def test_two_paddings_are_joined_and_made_once_for_all_layers() -> None:
    def model(q: Tensor, first: Tensor, second: Tensor) -> Tensor:
        mask = padded(first) & padded(second)
        q = F.scaled_dot_product_attention(q, q, q, mask)
        return F.scaled_dot_product_attention(q, q, q, mask)

    inputs = (Q, PADDING, PADDING.flip(0).roll(1, 1))
    before = program_of(model, *inputs)
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 2}
    assert body(result.program).count("aten.unsqueeze") == 4
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def test_the_scale_and_the_causal_flag_stay() -> None:
    def model(q: Tensor) -> Tensor:
        i = torch.arange(5)
        return F.scaled_dot_product_attention(q, q, q, causal(i), scale=0.3)

    before = program_of(model, Q)
    result = CanonicalMasks().run(before)
    assert "scale=0.3" in body(result.program)
    same_numbers(before, result.program, Q, tolerance=1e-6)


VALUES = torch.randn(2, 2, 5, 6, generator=SEED)


def of_values(mask: Mask) -> Callable[..., Tensor]:
    return lambda q, v, p: F.scaled_dot_product_attention(q, q, v, mask(torch.arange(5), p))


def test_a_flag_and_a_mask_over_values_of_another_size_are_kept() -> None:
    program = program_of(of_values(lambda i, p: causal(i) & padded(p)), Q, VALUES, PADDING)
    assert_left_alone(CanonicalMasks(), program, "differ in batch, heads or size of heads")


@pytest.mark.parametrize(
    "mask",
    [lambda i, p: causal(i), lambda i, p: padded(p) & padded(p.flip(0))],
    ids=["causal", "two paddings"],
)
def test_a_flag_or_masks_alone_over_values_of_another_size_are_read(mask: Mask) -> None:
    before = program_of(of_values(mask), Q, VALUES, PADDING)
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 1}
    same_numbers(before, result.program, Q, VALUES, PADDING, tolerance=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_flag_and_a_mask_over_heads_that_torch_groups_are_read(heads: int) -> None:
    def model(q: Tensor, k: Tensor, p: Tensor) -> Tensor:
        mask = causal(torch.arange(5)) & padded(p)
        return F.scaled_dot_product_attention(q, k, k, mask, enable_gqa=True)

    before = program_of(model, Q, Q[:, :heads], PADDING)
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 1}
    assert "enable_gqa=True" in body(result.program)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flag_and_a_mask_over_keys_of_one_batch_or_head_for_all_are_kept(axis: int) -> None:
    def model(q: Tensor, k: Tensor, p: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, causal(torch.arange(5)) & padded(p))

    program = program_of(model, Q, Q.narrow(axis, 0, 1).clone(), PADDING)
    assert_left_alone(CanonicalMasks(), program, "differ in batch, heads or size of heads")


def test_a_causal_mask_of_other_keys_than_queries_is_kept() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        mask = torch.arange(5)[None, :] <= torch.arange(3)[:, None]
        return F.scaled_dot_product_attention(q, k, k, mask)

    program = program_of(model, Q[:, :, :3], Q)
    assert_left_alone(CanonicalMasks(), program, "queries and keys differ")


def test_a_causal_mask_and_padding_of_other_keys_than_queries_are_kept() -> None:
    def model(q: Tensor, k: Tensor, p: Tensor) -> Tensor:
        mask = (torch.arange(5)[None, :] <= torch.arange(3)[:, None]) & padded(p)
        return F.scaled_dot_product_attention(q, k, k, mask)

    program = program_of(model, Q[:, :, :3].clone(), Q, PADDING)
    assert_left_alone(CanonicalMasks(), program, "queries and keys differ")


def test_a_causal_mask_of_one_query_and_one_key_for_all_is_kept() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, causal(torch.arange(1)))

    assert_left_alone(
        CanonicalMasks(), program_of(model, Q[:, :, :1].clone(), Q), "and keys differ"
    )


def test_a_causal_mask_of_three_axes_is_read() -> None:
    def model(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, causal(torch.arange(5)))

    before = program_of(model, Q[0])
    result = CanonicalMasks().run(before)
    assert counts(result) == {"masks": 1}
    same_numbers(before, result.program, Q[0], tolerance=1e-6)


def test_a_causal_mask_of_the_first_query_for_all_is_kept() -> None:
    def model(q: Tensor) -> Tensor:
        mask = torch.arange(5)[None, :] <= torch.arange(1)[:, None]
        return F.scaled_dot_product_attention(q, q, q, mask)

    assert_left_alone(CanonicalMasks(), program_of(model, Q), "queries and keys differ")


def test_masks_are_read_at_dynamic_sizes() -> None:
    def model(q: Tensor) -> Tensor:
        i = torch.arange(q.shape[2])
        return F.scaled_dot_product_attention(q, q, q, causal(i)[None, None])

    before = program_of(model, Q, dims={0: {0: "batch", 2: "seq"}})
    result = CanonicalMasks().run(run_passes(before, Noops()))
    assert counts(result) == {"masks": 1}
    same_numbers(before, result.program, torch.randn(3, 2, 7, 4), tolerance=1e-6)
