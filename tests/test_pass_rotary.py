"""Rotary embedding: each condition without which another computation would be taken for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor

from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.rotary import FuseRotary

SEED = torch.Generator().manual_seed(0)
X = torch.randn(1, 2, 3, 4, generator=SEED)
POSITIONS = torch.arange(3.0)[None]

Table = Callable[[Tensor], Tensor]
Halves = Callable[[Tensor], Tensor]


def angles(positions: Tensor, half: int = 2) -> Tensor:
    """[batch, seq, half]."""
    return positions[..., None] / 10 ** torch.arange(half)


def doubled(positions: Tensor, half: int = 2) -> Tensor:
    """[batch, seq, 2 * half] with equal halves."""
    found = angles(positions, half)
    return torch.cat((found, found), -1)


def exchanged(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


def form(
    halves: Halves = exchanged,
    table: Table = doubled,
    cos: Table | None = None,
    sin: Table | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The written form, with one part of it replaced."""
    cos_of = cos or (lambda p: table(p).cos().unsqueeze(1))
    sin_of = sin or (lambda p: table(p).sin().unsqueeze(1))
    return lambda x, p: x * cos_of(p) + halves(x) * sin_of(p)


def _cut(x: Tensor, start: int | None, end: int | None) -> Tensor:
    return torch.ops.aten.slice.Tensor(x, -1, start, end)  # type: ignore[no-any-return]


SAME: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as it is": form(),
    "tables scaled by a number": form(
        cos=lambda p: (doubled(p).cos() * 1.5).unsqueeze(1),
        sin=lambda p: (doubled(p).sin() * 0.5).unsqueeze(1),
    ),
    "axes counted from the right": form(cos=lambda p: doubled(p).cos().unsqueeze(-3)),
    "axes counted from the left": form(table=lambda p: torch.cat((angles(p),) * 2, 2)),
    "ends left to their defaults": form(
        lambda x: torch.cat((-_cut(x, 2, None), _cut(x, None, 2)), -1)
    ),
    "summands exchanged": lambda x, p: (
        doubled(p).sin().unsqueeze(1) * exchanged(x) + x * doubled(p).cos().unsqueeze(1)
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_forms_of_one_rotation_are_recognised(case: str) -> None:
    before = program_of(SAME[case], X, POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    assert ", 2)" in body(result.program).partition("strop.rotary")[2].splitlines()[0]
    same_numbers(before, result.program, X, POSITIONS, tolerance=1e-6)


NOT_EXCHANGED: dict[str, Halves] = {
    "both from a wrong start": lambda x: torch.cat((-x[..., 1:], x[..., 1:2]), -1),
    "both to a wrong end": lambda x: torch.cat((-x[..., 2:3], x[..., :3]), -1),
    "the first from a wrong start": lambda x: torch.cat((-x[..., 1:3], x[..., :2]), -1),
    "the second from a wrong start": lambda x: torch.cat((-x[..., 2:], x[..., 1:3]), -1),
    "the other one negative": lambda x: torch.cat((x[..., 2:], -x[..., :2]), -1),
    "another function of the first": lambda x: torch.cat((x[..., 2:].exp(), x[..., :2]), -1),
    "none negative": lambda x: torch.cat((x[..., 2:], x[..., :2]), -1),
    "not exchanged": lambda x: torch.cat((-x[..., :2], x[..., 2:]), -1),
    "halves of another value": lambda x: exchanged(x.tanh()),
    "the second of another value": lambda x: torch.cat((-x[..., 2:], x.tanh()[..., :2]), -1),
    "no cut": lambda x: torch.cat((-x.flip(-1)[..., 2:], x.flip(-1)[..., :2]), -1),
}


@pytest.mark.parametrize("case", NOT_EXCHANGED)
def test_other_halves_are_not_taken_for_a_rotation(case: str) -> None:
    program = program_of(form(NOT_EXCHANGED[case]), X, POSITIONS)
    assert_left_alone(FuseRotary(), program, "not of the halves exchanged")


def test_one_half_repeated_over_both_is_not_taken_for_a_rotation() -> None:
    def one(x: Tensor) -> Tensor:
        return torch.cat((-x[..., 1:],), -1)

    program = program_of(form(one, lambda p: doubled(p, 1)), X[..., :2], POSITIONS)
    assert_left_alone(FuseRotary(), program, "not of the halves exchanged")


def test_halves_cut_at_a_dynamic_place_are_not_taken_for_a_rotation() -> None:
    def model(x: Tensor, p: Tensor, y: Tensor) -> Tensor:
        cut = y.shape[0]
        return form(lambda x: torch.cat((-x[..., cut:], x[..., :cut]), -1))(x, p)

    inputs = (X, POSITIONS, torch.zeros(2))
    program = program_of(model, *inputs, dims={2: {0: ("cut", 1, 3)}})
    assert_left_alone(FuseRotary(), program, "not of the halves exchanged")


def test_a_second_half_that_is_computed_is_not_taken_for_a_rotation() -> None:
    program = program_of(
        form(lambda x: torch.cat((-x[..., 2:], x[..., :2].exp()), -1)), X, POSITIONS
    )
    assert_left_alone(FuseRotary(), program, "not of the halves exchanged")


def _turned(p: Tensor) -> Tensor:
    return doubled(p).roll(1, -1)


UNEQUAL: dict[str, Table] = {
    "different halves": lambda p: torch.cat((angles(p), 2 * angles(p)), -1),
    "rolled": _turned,
    "scaled by channel": lambda p: doubled(p) * torch.arange(4.0),
}


@pytest.mark.parametrize("which", ["cos", "sin"])
@pytest.mark.parametrize("case", UNEQUAL)
def test_tables_with_unequal_halves_are_not_taken_for_a_rotation(case: str, which: str) -> None:
    table = UNEQUAL[case]
    model = (
        form(cos=lambda p: table(p).cos().unsqueeze(1))
        if which == "cos"
        else form(sin=lambda p: table(p).sin().unsqueeze(1))
    )
    reason = f"the {which} table is not two equal halves"
    assert_left_alone(FuseRotary(), program_of(model, X, POSITIONS), reason)


def test_a_table_of_three_equal_parts_has_no_equal_halves() -> None:
    def table(p: Tensor) -> Tensor:
        return torch.cat((angles(p),) * 3, -1)

    program = program_of(form(table=table), torch.randn(1, 2, 3, 6), POSITIONS)
    assert_left_alone(FuseRotary(), program, "not two equal halves")


def test_a_table_doubled_along_the_positions_has_no_equal_halves() -> None:
    def table(p: Tensor) -> Tensor:
        return torch.cat((angles(p, 4),) * 2, 1)

    program = program_of(form(table=table), torch.randn(1, 2, 6, 4), POSITIONS)
    assert_left_alone(FuseRotary(), program, "not two equal halves")


def test_a_table_for_each_head_is_not_taken_for_one_for_each_batch() -> None:
    def one(p: Tensor) -> Tensor:
        return doubled(p).cos().unsqueeze(0)

    x, positions = torch.randn(2, 2, 3, 4), torch.randn(2, 3)
    assert_left_alone(FuseRotary(), program_of(form(cos=one), x, positions), "not two equal halves")


def test_a_table_that_is_an_input_is_left_alone() -> None:
    def model(x: Tensor, cos: Tensor) -> Tensor:
        return x * cos + exchanged(x) * doubled(POSITIONS).sin().unsqueeze(1)

    program = program_of(model, X, torch.randn(1, 1, 3, 4))
    assert_left_alone(FuseRotary(), program, "not two equal halves")


def test_three_axes_are_no_heads() -> None:
    program = program_of(form(), torch.randn(3, 3, 4), torch.randn(3, 3)[:, :1])
    assert_left_alone(FuseRotary(), program, "x is not [batch, heads, seq, size]")


def test_a_dynamic_size_of_heads_is_left_alone() -> None:
    def model(x: Tensor) -> Tensor:
        table = torch.cat((x[:, 0].cos(), x[:, 0].cos()), -1)
        wide = torch.cat((x, x), -1)
        cos, sin = table.cos().unsqueeze(1), table.sin().unsqueeze(1)
        return wide * cos + torch.cat((-wide[..., 2:], wide[..., :2]), -1) * sin

    program = program_of(model, X[..., :2].clone(), dims={0: {3: ("size", 2, 9)}})
    assert_left_alone(FuseRotary(), program, "heads or size are dynamic")


def test_a_dynamic_number_of_heads_is_left_alone() -> None:
    program = program_of(form(), X, POSITIONS, dims={0: {1: "heads"}})
    assert_left_alone(FuseRotary(), program, "heads or size are dynamic")


@pytest.mark.parametrize("rows", [1, 2])
def test_tables_for_each_batch_or_for_all_are_recognised(rows: int) -> None:
    x, positions = torch.randn(2, 2, 3, 4), torch.randn(rows, 3)
    before = program_of(form(), x, positions)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    same_numbers(before, result.program, x, positions, tolerance=1e-6)


def test_a_rotation_of_dynamic_batch_and_length_is_recognised() -> None:
    inputs = (torch.randn(2, 2, 3, 4), torch.randn(2, 3))
    before = program_of(
        form(), *inputs, dims={0: {0: "batch", 2: "seq"}, 1: {0: "batch", 1: "seq"}}
    )
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    longer = (torch.randn(3, 2, 5, 4), torch.randn(3, 5))
    same_numbers(before, result.program, *longer, tolerance=1e-6)


def test_a_part_of_the_table_that_the_model_takes_itself_is_not_the_half() -> None:
    def model(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        cos = doubled(p).cos()
        last = cos[..., 1:3]
        return form(cos=lambda _: cos.unsqueeze(1))(x, p), last

    before = program_of(model, X, POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    same_numbers(before, result.program, X, POSITIONS, tolerance=1e-6)


def test_two_rotations_share_the_halves_of_their_tables() -> None:
    def model(q: Tensor, k: Tensor, p: Tensor) -> Tensor:
        table = doubled(p)
        cos, sin = table.cos().unsqueeze(1), table.sin().unsqueeze(1)
        return (q * cos + exchanged(q) * sin) @ (k * cos + exchanged(k) * sin).transpose(-1, -2)

    before = program_of(model, X, X.flip(0), POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 2}
    assert body(result.program).count("aten.slice.Tensor") == 2
    same_numbers(before, result.program, X, X.flip(0), POSITIONS, tolerance=1e-6)


WIDE = torch.randn(1, 2, 3, 6, generator=SEED)


def partly(
    rest: Callable[[Tensor], Tensor] = lambda x: x[..., 4:],
    part: Callable[[Tensor], Tensor] = lambda x: x[..., :4],
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, p: torch.cat((form()(part(x), p), rest(x)), -1)


NOT_THE_ENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a rest from a wrong start": partly(lambda x: x[..., 3:]),
    "a rest from a later start": partly(lambda x: x[..., 5:]),
    "a rest to a wrong end": partly(lambda x: x[..., 4:5]),
    "every second of the rest": partly(lambda x: x[..., 4::2]),
    "the rest of another value": partly(lambda x: x.tanh()[..., 4:]),
    "a part from a wrong start": partly(part=lambda x: x[..., 1:5]),
    "a rest that is no part": partly(lambda x: x.exp()),
}


@pytest.mark.parametrize("case", NOT_THE_ENDS)
def test_other_parts_are_rotated_alone(case: str) -> None:
    before = program_of(NOT_THE_ENDS[case], WIDE, POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    assert any("not the two ends" in miss.reason for miss in result.log.misses)
    same_numbers(before, result.program, WIDE, POSITIONS, tolerance=1e-6)


@pytest.mark.parametrize("axis", [-1, 3])
def test_a_rotated_part_and_the_rest_are_one_rotation(axis: int) -> None:
    def model(x: Tensor, p: Tensor) -> Tensor:
        return torch.cat((form()(x[..., :4], p), x[..., 4:]), axis)

    before = program_of(model, WIDE, POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1, "rotary-partial": 1}
    assert "strop.rotary(%input_0" in body(result.program)
    same_numbers(before, result.program, WIDE, POSITIONS, tolerance=1e-6)


def test_parts_joined_along_another_axis_are_rotated_alone() -> None:
    def model(x: Tensor, p: Tensor) -> Tensor:
        return torch.cat((form(table=lambda q: doubled(q, 1))(x[..., :2], p), x[..., 2:]), 1)

    x = torch.randn(1, 2, 3, 4, generator=SEED)
    before = program_of(model, x, POSITIONS)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    assert any("another axis" in miss.reason for miss in result.log.misses)
    same_numbers(before, result.program, x, POSITIONS, tolerance=1e-6)


def test_packed_heads_cut_across_heads_are_rotated_alone() -> None:
    def model(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = torch.ops.strop.rotary(x[..., :4], cos, sin, 2)
        return torch.cat((turned, x[..., 4:]), -1)

    inputs = (torch.randn(1, 3, 6), torch.randn(1, 3, 1), torch.randn(1, 3, 1))
    assert_left_alone(FuseRotary(), program_of(model, *inputs), "the first part is not rotated")


def test_other_joined_values_are_left_alone() -> None:
    program = program_of(lambda x, y: torch.cat((x, y), -1), X, X)
    assert_left_alone(FuseRotary(), program, "the first part is not rotated")


def test_heads_made_by_a_transpose_are_rotated_packed() -> None:
    def model(x: Tensor, p: Tensor) -> Tensor:
        heads = x.view(1, 3, 2, 4).transpose(1, 2)
        return form()(heads, p).transpose(1, 2).flatten(2)

    x = torch.randn(1, 3, 8, generator=SEED)
    before = program_of(model, x, POSITIONS)
    after = run_passes(before, Noops(), FuseRotary(), Noops())
    assert "strop.rotary(%input_0, " in body(after)
    same_numbers(before, after, x, POSITIONS, tolerance=1e-6)
